//! What happens to a run by itself as time passes.

use std::time::Duration;

use super::Run;
use crate::model::Status;

/// The acts of a run, in order. After the last one, or the first that ends in anything but Success, the run has
/// ended with the status of that act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script(pub Vec<Act>);

/// What happens to one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// The stage's code.
    pub stage: String,
    pub opens: Opens,
    /// From its start to its end.
    pub takes: Duration,
    pub ends: Status,
    /// What the stage says at its end; the run says it too unless all is well.
    pub message: String,
}

/// When a stage starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opens {
    /// This long after the stage before it ended.
    After(Duration),
    /// When a person triggers it, see [`super::World::trigger`].
    OnTrigger,
}

impl Act {
    /// Starts right after the stage before it, and succeeds.
    pub fn new(stage: &str, takes: Duration) -> Act {
        Act {
            stage: stage.to_owned(),
            opens: Opens::After(Duration::ZERO),
            takes,
            ends: Status::Success,
            message: String::new(),
        }
    }

    /// Waits first.
    #[must_use]
    pub fn after(self, wait: Duration) -> Act {
        Act { opens: Opens::After(wait), ..self }
    }

    /// Waits for a person.
    #[must_use]
    pub fn gated(self) -> Act {
        Act { opens: Opens::OnTrigger, ..self }
    }

    /// Fails at its end.
    #[must_use]
    pub fn failing(self, message: &str) -> Act {
        Act { ends: Status::Fail, message: message.to_owned(), ..self }
    }

    /// Ends otherwise.
    #[must_use]
    pub fn ending(self, status: Status) -> Act {
        Act { ends: status, ..self }
    }
}

/// How far a script has come.
pub(super) struct Progress {
    script: Script,
    act: usize,
    phase: Phase,
    /// How long the phase has lasted.
    lasted: Duration,
    triggered: bool,
}

#[derive(PartialEq, Eq)]
enum Phase {
    Waiting,
    Running,
}

impl Progress {
    pub(super) fn new(script: Script) -> Progress {
        Progress { script, act: 0, phase: Phase::Waiting, lasted: Duration::ZERO, triggered: false }
    }

    pub(super) fn trigger(&mut self) {
        let gate = self.script.0.get(self.act).is_some_and(|act| act.opens == Opens::OnTrigger);
        self.triggered = gate && self.phase == Phase::Waiting;
    }
}

impl Run {
    /// Plays the script on by that much time; true when anything changed.
    pub(super) fn play(&mut self, elapsed: Duration) -> bool {
        let Some(mut progress) = self.progress.take() else { return false };
        progress.lasted += elapsed;
        let mut changed = false;
        while !self.status.is_terminal() && self.play_one(&mut progress) {
            changed = true;
        }
        self.progress = Some(progress);
        changed
    }

    /// Starts or ends one stage, where it is time.
    fn play_one(&mut self, progress: &mut Progress) -> bool {
        let Some(act) = progress.script.0.get(progress.act) else { return false };
        match progress.phase {
            Phase::Waiting => {
                progress.lasted = match act.opens {
                    Opens::After(wait) => match progress.lasted.checked_sub(wait) {
                        Some(rest) => rest,
                        None => return false,
                    },
                    // A person comes at the present moment, so nothing of the past counts for what follows.
                    Opens::OnTrigger if progress.triggered => Duration::ZERO,
                    Opens::OnTrigger => {
                        return false;
                    }
                };
                progress.triggered = false;
                progress.phase = Phase::Running;
                self.status = Status::Running;
                // A script may name a stage the run does not have: then that act only takes its time.
                let _ = self.set_stage(&act.stage, Status::Running, "");
            }
            Phase::Running => {
                let Some(rest) = progress.lasted.checked_sub(act.takes) else { return false };
                progress.lasted = rest;
                let _ = self.set_stage(&act.stage, act.ends.clone(), &act.message);
                let last = progress.act + 1 == progress.script.0.len();
                if last || act.ends != Status::Success {
                    self.status = act.ends.clone();
                    self.message.clone_from(&act.message);
                }
                progress.phase = Phase::Waiting;
                progress.act += 1;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RunSpec, World};
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn told(world: &World, id: &crate::model::RunId) -> String {
        let (run, stages) = world.look(1, id).unwrap();
        let stages: Vec<String> = stages.into_iter().map(|(_, status)| status.to_string()).collect();
        format!("{run}: {}", stages.join(" "))
    }

    #[test]
    fn a_script_plays_as_time_passes_and_waits_for_a_person_at_its_gate() {
        let world = World::new("id", "secret");
        let script = Script(vec![
            Act::new("BUILD_PACKAGE", seconds(10)),
            Act::new("PROD_CHECK", seconds(5)).after(seconds(2)),
            Act::new("PROD", seconds(20)).gated().failing("table missing"),
        ]);
        let id = world.add_run(1, RunSpec::online("orders").scripted(script));
        assert_eq!(told(&world, &id), "Init: Init Init Init");
        world.step(seconds(1));
        assert_eq!(told(&world, &id), "Running: Running Init Init");
        world.step(seconds(9));
        assert_eq!(told(&world, &id), "Running: Success Init Init");
        world.step(seconds(3_600));
        assert_eq!(told(&world, &id), "Running: Success Success Init", "nobody has come");
        world.trigger(1, &id).unwrap();
        world.step(seconds(1));
        assert_eq!(told(&world, &id), "Running: Success Success Running");
        world.step(seconds(20));
        assert_eq!(told(&world, &id), "Fail: Success Success Fail");
        world.step(seconds(100));
        assert_eq!(told(&world, &id), "Fail: Success Success Fail");
    }

    #[test]
    fn one_long_step_is_the_same_as_many_short_ones() {
        let play = |step: u64| {
            let world = World::new("id", "secret");
            let script = Script(vec![Act::new("BUILD_PACKAGE", seconds(3)), Act::new("PROD_CHECK", seconds(4))]);
            let id = world.add_run(1, RunSpec::online("orders").scripted(script));
            (0..6 / step).for_each(|_| world.step(seconds(step)));
            told(&world, &id)
        };
        assert_eq!(play(6), play(1));
        assert_eq!(play(6), "Running: Success Running Init");
    }
}
