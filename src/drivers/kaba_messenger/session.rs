//! One conversation: a request, and its answer or none. No IO, no clock.

use super::{
    answer::{self, Answer},
    command::Command,
};
use crate::{
    model::{Code, Refusal},
    transport::http::{self, Failure, HttpError},
};

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Result {
    /// No byte of it was written.
    NothingSent(Refusal),
    /// Not done, and that is certain; or it changes nothing, and no answer came.
    Refused(Refusal),
    /// It may have been done.
    Doubt(Refusal),
    /// Done.
    Done,
}

/// What an exchange came to for its command.
#[must_use]
pub fn ended(command: &Command, came: &std::result::Result<http::Answer, HttpError>) -> Result {
    let error = match came {
        Ok(heard) => {
            return match answer::read(command, heard.status, &heard.body) {
                Answer::Done => Result::Done,
                Answer::Refused(refusal) => Result::Refused(refusal),
                Answer::Doubt(refusal) => Result::Doubt(refusal),
            };
        }
        Err(error) => error,
    };
    let refusal = |code| Refusal::new(code, error.to_string());
    if !error.may_have_left {
        return Result::NothingSent(refusal(Code::SystemOffline));
    }
    if !command.writes() {
        return Result::Refused(refusal(Code::SystemOffline));
    }
    Result::Doubt(refusal(match error.why {
        Failure::Lost(_) | Failure::Unreachable(_) | Failure::Tls(_) | Failure::Busy => Code::LineLost,
        Failure::Silent(_) | Failure::Malformed(_) | Failure::TooLong(_) => Code::NoAnswer,
    }))
}
