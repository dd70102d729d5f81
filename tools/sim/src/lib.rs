//! The whole broker in virtual time, and its checkers.
