//! Mistakes put into the code on purpose, one at a time, so that the simulation can show that it would notice them.
//!
//! Without the feature `planted-bugs` none of this exists: [`is_planted`] is constantly false. Only tests have the
//! feature.

/// A mistake that somebody could make, and whom it would hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// No answer is taken for a success.
    SilenceIsSuccess,
    /// A refused connection is taken for a success.
    RefusalIsSuccess,
    /// What may have arrived is tried again as if it had not.
    UnknownIsRetried,
    /// One message more than the pace allows.
    PaceOffByOne,
    /// The pace counts from the end of the window before, not over any window.
    PaceForgets,
    /// A wait that the platform asked for is not kept.
    WaitIsIgnored,
    /// A destination that fails is tried without a pause.
    NoBackoff,
    /// What concerns the whole bot closes one room.
    AccountIsIgnored,
    /// Refused credentials are tried again at once.
    DenialHammers,
    /// A destination that is gone is tried on.
    DeadIsTriedOn,
    /// A clock that went back opens every pace.
    ClockBackOpensPaces,
    /// Too many messages count as a failure of the message.
    LimitsKill,
    /// Old progress is told as news.
    StaleIsNews,
    /// What was missed is told before the present is known.
    NoLookBeforeCatchUp,
    /// Digests where one by one would do.
    EagerDigests,
    /// A channel that prefers a loss gets repetitions.
    DuplicatesForLossy,
    /// A possible repetition is not said to be one.
    UnmarkedRepetition,
    /// A digest does not name its last change.
    DigestDropsOne,
    /// A digest tells a run's changes newest first.
    DigestReversed,
    /// A message is tried twice within one attempt.
    RetryWithinAttempt,
    /// What happened is forgotten when the store fails.
    SettleOnce,
    /// The message id changes with each attempt.
    NewIdEachTime,
    /// Memory moves although the store refused.
    MemoryAheadOfStore,
    /// Only the first subscription is served.
    OneSubscriptionOnly,
    /// A poll that did not know of a subscription records without it.
    StaleIsRecorded,
    /// The end of a run ends standing subscriptions as well.
    EndsTooMuch,
    /// A watch outlives its run.
    WatchOutlivesRun,
    /// A status gone backwards is believed at once.
    BackwardsBelieved,
    /// Every refusal is announced.
    NoticeEachTime,
    /// A claim is not durable.
    ClaimForgets,
    /// A claim takes what is not the oldest of its run.
    ClaimsBehindHead,
    /// Two messages are under way to one destination.
    TwoAtATime,
    /// Progress goes before what is urgent.
    ProgressFirst,
    /// What was in flight at a death is pending again.
    DeathIsForgotten,
    /// What may have arrived is told once more by another message.
    UnknownIsFolded,
    /// Places are forgotten at a start.
    PlacesForgotten,
    /// What is told by a refused digest is lost.
    RefusedDigestLost,
    /// What comes apart from a message that may have arrived is taken for its repetition.
    ComesApartUnknown,
    /// The last try of the only message says nothing of its destination.
    LastTryIsSilent,
    /// Who refuses each message counts as healthy.
    RejectionsAreSilent,
    /// A subscription does not count up its run's version.
    SubscribeUnseen,
    /// The ledger does not count what one message did for several.
    LedgerForgets,
}

impl Bug {
    pub const ALL: [Bug; 42] = [
        Bug::SilenceIsSuccess,
        Bug::RefusalIsSuccess,
        Bug::UnknownIsRetried,
        Bug::PaceOffByOne,
        Bug::PaceForgets,
        Bug::WaitIsIgnored,
        Bug::NoBackoff,
        Bug::AccountIsIgnored,
        Bug::DenialHammers,
        Bug::DeadIsTriedOn,
        Bug::ClockBackOpensPaces,
        Bug::LimitsKill,
        Bug::StaleIsNews,
        Bug::NoLookBeforeCatchUp,
        Bug::EagerDigests,
        Bug::DuplicatesForLossy,
        Bug::UnmarkedRepetition,
        Bug::DigestDropsOne,
        Bug::DigestReversed,
        Bug::RetryWithinAttempt,
        Bug::SettleOnce,
        Bug::NewIdEachTime,
        Bug::MemoryAheadOfStore,
        Bug::OneSubscriptionOnly,
        Bug::StaleIsRecorded,
        Bug::EndsTooMuch,
        Bug::WatchOutlivesRun,
        Bug::BackwardsBelieved,
        Bug::NoticeEachTime,
        Bug::ClaimForgets,
        Bug::ClaimsBehindHead,
        Bug::TwoAtATime,
        Bug::ProgressFirst,
        Bug::DeathIsForgotten,
        Bug::UnknownIsFolded,
        Bug::PlacesForgotten,
        Bug::RefusedDigestLost,
        Bug::ComesApartUnknown,
        Bug::LastTryIsSilent,
        Bug::RejectionsAreSilent,
        Bug::SubscribeUnseen,
        Bug::LedgerForgets,
    ];
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Puts one mistake, or none, into the code that runs on this thread.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

#[cfg(feature = "planted-bugs")]
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

#[cfg(not(feature = "planted-bugs"))]
pub const fn is_planted(_: Bug) -> bool {
    false
}
