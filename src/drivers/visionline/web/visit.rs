//! One piece of work: a session is opened, calls are made, the session is closed. No IO, no clock.
//!
//! How long a session lasts and how many there may be is not published; the programs that are known open one for a piece of
//! work, and so does this. A call that is not let in is made once more with a new session: nothing was done by it.

use std::collections::VecDeque;

use super::{
    answer::{self, Card, Door, Status},
    call::{Call, CardImage, PhoneKey},
    codec::SessionKey,
};
use crate::{
    model::{Code, Private, Refusal},
    transport::http::{self, Failure, HttpError},
};

/// Most cards of a door or chip that are looked at, one call each.
pub const MOST_CARDS: usize = 64;

/// What a visit is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Errand {
    /// To see that the user is let in.
    Greet,
    /// All doors, with details.
    Doors,
    /// The cards that a first call lists, each looked at.
    Cards(Call),
    /// To make a telephone's key.
    PhoneKey(PhoneKey),
    /// To have a card computed.
    CardImage(CardImage),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Result {
    /// The user is let in.
    LetIn,
    /// The doors.
    Doors(Vec<Door>),
    /// The cards.
    Cards(Vec<Card>),
    /// A telephone's key was made, with this id.
    Made(String),
    /// What goes into a chip's pages, from page 4 on.
    Image(Vec<[u8; 4]>),
    /// Not done, and that is certain.
    Refused(Refusal),
    /// It may have been done.
    Doubt(Refusal),
}

/// A visit under way.
#[derive(Debug)]
pub struct Visit {
    user: String,
    password: Private,
    calls: VecDeque<Call>,
    cards: Vec<Card>,
    key: Option<SessionKey>,
    /// Whether a session was opened once more.
    renewed: bool,
    /// What came of it, once that is known; what is left is to sign out.
    result: Option<Result>,
    is_over: bool,
}

impl Visit {
    /// A visit by this user.
    #[must_use]
    pub fn new(user: &str, password: Private, errand: Errand) -> Self {
        let call = match errand {
            Errand::Greet => None,
            Errand::Doors => Some(Call::Doors { details: true }),
            Errand::Cards(list) => Some(list),
            Errand::PhoneKey(key) => Some(Call::PhoneKey(key)),
            Errand::CardImage(image) => Some(Call::CardImage(image)),
        };
        Self {
            user: user.to_owned(),
            password,
            calls: call.into_iter().collect(),
            cards: Vec::new(),
            key: None,
            renewed: false,
            result: None,
            is_over: false,
        }
    }

    /// The next call, and what signs it; none when the visit is over.
    #[must_use]
    pub fn next(&self) -> Option<(Call, Option<&SessionKey>)> {
        if self.is_over {
            return None;
        }
        match (&self.key, &self.result, self.calls.front()) {
            (None, _, _) => {
                Some((Call::SignIn { user: self.user.clone(), password: self.password.clone() }, None))
            }
            (Some(key), None, Some(call)) => Some((call.clone(), Some(key))),
            (Some(key), _, _) => Some((Call::SignOut { session: key.id.clone() }, Some(key))),
        }
    }

    /// Takes what came of the call that [`Self::next`] gave.
    pub fn heard(&mut self, came: &std::result::Result<http::Answer, HttpError>) {
        let Some((call, _)) = self.next() else { return };
        if let Call::SignOut { .. } = call {
            // It ends by itself where that did not work.
            self.is_over = true;
            return;
        }
        let heard = match came {
            Ok(heard) => heard,
            Err(error) => {
                self.is_over = true;
                self.result = Some(lost(&call, error));
                return;
            }
        };
        match answer::status(&call, heard) {
            Status::Good => self.good(&call, &heard.body),
            Status::NotSignedIn(_) if self.key.is_some() && !self.renewed => {
                self.renewed = true;
                self.key = None;
            }
            Status::NotSignedIn(refusal) | Status::Refused(refusal) => self.end(Result::Refused(refusal)),
            Status::Doubt(refusal) => self.end(Result::Doubt(refusal)),
        }
    }

    /// What came of it. A visit that was not brought to its end has done nothing that it is known of.
    #[must_use]
    pub fn result(self) -> Option<Result> {
        self.result
    }

    /// Nothing more is asked but to sign out.
    fn end(&mut self, result: Result) {
        self.result = Some(result);
        self.calls.clear();
        // Without a session there is nothing to close.
        self.is_over = self.key.is_none();
    }

    fn good(&mut self, call: &Call, body: &[u8]) {
        let garbled = |what: &str| {
            Refusal::new(Code::ProtocolViolation, format!("Visionline's Web API answered without {what}"))
        };
        match call {
            Call::SignIn { .. } => match answer::session(body) {
                Some(key) => {
                    self.key = Some(key);
                    if self.calls.is_empty() {
                        self.end(Result::LetIn);
                    }
                }
                None => self.end(Result::Refused(garbled("a session that could be used"))),
            },
            Call::Doors { .. } => self.end(match answer::doors(body) {
                Some(doors) => Result::Doors(doors),
                None => Result::Refused(garbled("a list of doors")),
            }),
            Call::CardsOfDoor { .. } | Call::CardsOfChip { .. } => match answer::ids(body) {
                Some(ids) if ids.len() > MOST_CARDS => self.end(Result::Refused(Refusal::new(
                    Code::ProtocolViolation,
                    format!(
                        "Visionline's Web API lists {} cards, at most {MOST_CARDS} are looked at",
                        ids.len()
                    ),
                ))),
                Some(ids) => {
                    self.calls = ids.into_iter().map(|id| Call::Card { id }).collect();
                    self.go_on_or_end_with_cards();
                }
                None => self.end(Result::Refused(garbled("a list of cards"))),
            },
            Call::Card { id } => match answer::card(body).filter(|card| card.id == *id) {
                Some(card) => {
                    self.cards.push(card);
                    self.calls.pop_front();
                    self.go_on_or_end_with_cards();
                }
                None => self.end(Result::Refused(garbled("the card that was asked for"))),
            },
            Call::PhoneKey(_) => self.end(match answer::credential(body) {
                Some(id) => Result::Made(id),
                None => Result::Doubt(garbled("the id of the key; it may have been made")),
            }),
            Call::CardImage(_) => self.end(match answer::image(body) {
                Some(pages) => Result::Image(pages),
                None => Result::Doubt(garbled("an image that fits a chip; the server counts a card")),
            }),
            Call::SignOut { .. } => unreachable!("it was taken before"),
        }
    }

    fn go_on_or_end_with_cards(&mut self) {
        if self.calls.is_empty() {
            let cards = std::mem::take(&mut self.cards);
            self.end(Result::Cards(cards));
        }
    }
}

/// What a call without an answer came to.
fn lost(call: &Call, error: &HttpError) -> Result {
    let refusal = |code| Refusal::new(code, error.to_string());
    if !error.may_have_left || !call.makes_a_key() {
        return Result::Refused(refusal(Code::SystemOffline));
    }
    Result::Doubt(refusal(match error.why {
        Failure::Lost(_) | Failure::Unreachable(_) | Failure::Tls(_) | Failure::Busy => Code::LineLost,
        Failure::Silent(_) | Failure::Malformed(_) | Failure::TooLong(_) => Code::NoAnswer,
    }))
}

#[cfg(test)]
mod tests;
