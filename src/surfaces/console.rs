//! A terminal: commands from standard input, answers to standard output.
