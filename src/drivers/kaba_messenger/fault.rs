//! The names of what goes wrong: the service's 53 main reasons and the 162 reasons of what stands behind it, spelled as
//! the service spells them, and what each means for a command.
//!
//! A reason that speaks of somebody who did not answer, of an exception, of something that was broken off, of a booking
//! that could not be stored, or of trouble while a card was being written proves nothing: such a command may have been
//! done. The names are the service's; what each means for a command is our reading of it.

use crate::model::Code;

/// What a reason means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing went wrong.
    Fine,
    /// There was nothing to do.
    NothingToDo,
    /// It only says where the reason is to be found.
    Elsewhere,
    /// Not done.
    Refused(Code),
    /// It may have been done.
    Doubt,
}

/// What a name means; none where it is not one of the service's.
#[must_use]
pub fn meaning(name: &str) -> Option<Meaning> {
    let named = |(names, meaning): &(&[&str], Meaning)| names.contains(&name).then_some(*meaning);
    TABLE.iter().find_map(named)
}

/// Whether the server wants a person's confirmation, which it asks for at its own desk alone.
#[must_use]
pub fn wants_confirmation(name: &str) -> bool {
    CONFIRM.contains(&name)
}

const TABLE: &[(&[&str], Meaning)] = &[
    (FINE, Meaning::Fine),
    (&["NoActionRequired"], Meaning::NothingToDo),
    (ELSEWHERE, Meaning::Elsewhere),
    (DOUBT, Meaning::Doubt),
    (NO_CARD, Meaning::Refused(Code::NoCard)),
    (BAD_CARD, Meaning::Refused(Code::BadCard)),
    (ENCODER_OFFLINE, Meaning::Refused(Code::EncoderOffline)),
    (ENCODER_BUSY, Meaning::Refused(Code::EncoderBusy)),
    (ROOM_UNKNOWN, Meaning::Refused(Code::RoomUnknown)),
    (NO_STAY, Meaning::Refused(Code::NoStayToJoin)),
    (BAD_DATES, Meaning::Refused(Code::BadDates)),
    (AUTH, Meaning::Refused(Code::Auth)),
    (UNSUPPORTED, Meaning::Refused(Code::Unsupported)),
    (CONFIRM, Meaning::Refused(Code::Rejected)),
    (REJECTED, Meaning::Refused(Code::Rejected)),
];

/// Nothing went wrong.
const FINE: &[&str] = &["NoFault", "Success", "VIP_Success"];

/// The reason stands beside it.
const ELSEWHERE: &[&str] = &["EncoderMsg", "EncoderResponse", "NotApplicable"];

/// Somebody did not answer, or failed half-way.
const DOUBT: &[&str] = &[
    "EncoderNotResponding",
    "VIP_READ_TIMEOUT",
    "VIP_ENCODER_FAILURE",
    "UnableToSendMessageToLock",
    "RoomOFFLine",
    "InternalSystemOutOfDiskSpaceProblem",
    "InternalSystemFileWriteProblem",
    "RequestTimeoutNoResponse",
    "TimeoutWaitingResponse",
    "TimeoutGeneralComError",
    "CallerRequestWasLost",
    "TransactionRequestWasLost",
    "UnableToProcessLostRequest",
    "CallerRequestNotTheSame",
    "MessengerPMSServiceNoResponse",
    "IRSConnectionLost",
    "EncoderNoResponse",
    "VIP_WRITE_TIMEOUT",
    "VIP_WRITE_ERROR",
    "VIP_ENCODER_DISCONNECT_FAILED",
    "ATLASCommFailure",
    "ExceptionRequestFailed",
    "ExceptionFault",
    "UndefinedFault",
    "Undefined",
    "GeneralSystemError",
    "KABALodginInterfaceExceptionRaised",
    "KABALodgingInterfaceExceptionRaised",
    "VIPExceptionRaised",
    "ATLASExceptionRaised",
    "VIP_FatalErrorWithEViewer",
    "SystemErrorFailed",
    "InternalMemoryTimeoutError",
    "InternalSyncTimeoutError",
    "InternalSystemErrorTimeoutToProcessRequests",
    "InvalidPMSResponse",
    "InternalSystemResponseError",
    "KDSFail",
    "UnableToProcessRequest",
    // Nothing says that these stand before the card is written.
    "RequestWasAborted",
    "UnableToCompleteReservation",
    "UnableToChangeReservationInfo",
    "UnableToChangeReservationKeyInfo",
    "FailedSetReservation",
    "UnableToSetPMSOperationNoInDB",
    "EncoderMemoryError",
];

/// Nobody laid a card down.
const NO_CARD: &[&str] =
    &["TimeoutWaitingKey", "VIP_NO_CARD_PRESENT", "VIP_NO_TAGS_FOUND", "ATLASCardNotInserted"];

/// The card cannot be used.
const BAD_CARD: &[&str] = &[
    "KeyJammed",
    "KeyNotFaceUp",
    "KeyMaybeDamaged",
    "KeyNotPreRegistered",
    "VIP_CARD_AUTH_FAILED",
    "VIP_UNKNOWN_CARD_FORMAT",
    "VIP_INVALID_SECTOR",
    "VIP_CARD_NOT_FORMATED",
    "VIP_NOT_SAFLOK_PUBLISHER",
    "VIP_NO_FREE_SECTORS",
    "VIP_TOO_MUCH_CARDS",
    "ATLASCardNotSupported",
    "ATLASNotGuestCard",
    "ATLASUnsupportedCoercivity",
    "ATLASInvalidCoercivity",
];

/// The encoder, or what serves it, is not there.
const ENCODER_OFFLINE: &[&str] = &[
    "EncoderNotOnlineOrNotExist",
    "InvalidEncoderNumber",
    "TransactionEncoderNumberOutOfRange",
    "VIP_ENCODER_CONNECT_FAILED",
    "VIP_INITIALIZATION_FAILED",
    "ATLASInvalidDeviceAddress",
    "ATLASDeviceInactive",
];

/// It is at work for somebody else.
const ENCODER_BUSY: &[&str] = &[
    "EncoderBusy",
    "VIP_EncoderBusy",
    "ATLASDeviceBusy",
    "BusyProcessingPreviousRequest",
    "InternalSoftwareBusyArchiving",
    "InternalSystemStartupBusy",
    "InternalSystemBusyClearing",
];

/// No such room.
const ROOM_UNKNOWN: &[&str] = &[
    "RoomNumberNotFound",
    "RoomNameNotSet",
    "ATLASInvalidRoomNo",
    "ATLASRoomNoOutOfRange",
    "TransactionKeyNumberOutOfRange",
    "TransactionKeyNumberNotNumeric",
    "TransactionKeyNumberNULL",
    "TransactionKeyNumberIncorrectFormat",
    "TransactionKeyNumberNotAavailable",
    "CannotCreateKeyForThisRoomType",
];

/// Nobody stays there, or not any more.
const NO_STAY: &[&str] = &[
    "KeyInstanceNotFound",
    "SharedWithMustHaveExistingStay",
    "ReservationNotFound",
    "ReservationHasExpired",
    "ReservationCheckedOut",
    "UnassignDuplicateToNoneExistingReservation",
    "RoomMustHaveSameStay",
    "RoomMoveMustHaveSameStay",
];

/// Start or end refused.
const BAD_DATES: &[&str] = &[
    "CheckoutDateLessThanSystemDate",
    "KeyExpirationInPast",
    "KeyExpirationInFuture",
    "InvalidPMSRequestDate",
    "InvalidPMSRequestTime",
    "ATLASCheckInOutOfRange",
    "ATLASCheckInLargerCheckOut",
    "ATLASCheckInSmallerCreation",
    "ATLASInvalidExpiry",
    "ATLASInvalidCheckIn",
    "ATLASInvalidCreation",
];

/// Credentials or rights.
const AUTH: &[&str] = &[
    "UserCredentialsNotProvided",
    "AuthHeaderNotRecognized",
    "PasswordInvalid",
    "InsufficientPasswordLength",
    "TransactionUnauthorized",
    "TransactionUnauthorizedKey",
    "ATLASInvalidAuthorization",
    "ATLASHigherAuthorizarionNeeded",
    "KABALodgingInterfaceCredentialError",
];

/// The site cannot do it.
const UNSUPPORTED: &[&str] = &[
    "OperationNotSupported",
    "KABALodgingInterfaceOperationNotSupported",
    "TransactionTypeNotAvailable",
    "ATLASDisabledFunction",
    "NoSharewithForSuites",
    "GuestLevelNotAvailableInAllRooms",
    "SecuredKeyProductLineNotSupported",
];

/// The server wants a person's confirmation at its own desk.
const CONFIRM: &[&str] = &[
    "ConfirmKeyCancel",
    "ConfirmKeyDuplicate",
    "ConfirmExpireBeforeCheckout",
    "ConfirmCheckBackIn",
    "VIP_RequestConfirmationToOverwriteKey",
];

/// Any other definite refusal.
const REJECTED: &[&str] = &[
    "InvalidWSParameter",
    "NoCallerID",
    "NoRequestMsg",
    "MaxSharedReached",
    "UnableToRegisterSessionForPMSTerminalID",
    "ReservationNoInvalid",
    "ReservationNoSuspended",
    "MaxUnassignReached",
    "InvalidVIPRequestInfo",
    "SecuredKeyDeviceUIDEmpty",
    "SecuredKeyDeviceUIDLengthInvalid",
    "SecuredKeyDeviceUIDZeroOnly",
    "InvalidHexValue",
    "EmptyPhoneNumber",
    "PhoneNumberTooSmall",
    "UnableToDeliverToPhone",
    "MaxDuplicatesMadeReached",
    "TransactionNotSupportKeyLevel",
    "InternalSoftwareErrorCompatibility",
    "TransactionTypeInvalid",
    "InternalSoftwareErrorDataFiles",
    "TransactionKeyLevelNotAavailable",
    "InternalSoftwareErrorKeyFiles",
    "InvalidTransactionRequest",
    "InvalidPMSTerminalNumber",
    "TransactionKeyNumberOfKeysZERO",
    "InvalidEncoderReqTerminated",
    "ErrorNotOverridenReqTerminated",
    "IncompatiblePMSInterface",
    "TransactionKeyNotValid",
    "TransactionKeyAndLevelNotValid",
    "InvalidTransactionTypeReceived",
    "InvalidGRCCode",
    "InvalidPassOption",
    "InvalidPassNumber",
    "InvalidNumberOfSeconds",
    "InvalidDestinationTerminalNumber",
    "InvalidNumericField",
    "TransactionLockKeyInaccessible",
    "TransactionKeyInaccessible",
    "MustProvidePassLevelNo",
    "PassNumberIsInvalid",
    "UnableToCreateKeyNewSequenceRequired",
    "UnableToProcessVerifyGuestKey",
    "InternalPollingError",
    "InternalOnlineError",
    "InternalKeyDataFilesCorrupted",
    "InternalSystemExecError",
    "InternalSystemErrorUnableToProcessRequests",
    "InternalSystemErrorDriveAccessProblem",
    "InternalSystemErrorFileDeletion",
    "InternalSystemErrorFileCorrupted",
    "InternalSystemErrorMemoryProblem",
    "InternalSystemErrorClockProblem",
    "InternalSystemErrorOverflowProblem",
    "InternalSystemFilePointerProblem",
    "InternalSystemFileNotFoundProblem",
    "InternalSystemFileNotReadableProblem",
    "VIP_None",
    "VIP_CREATE_LOGFILE_FAILED",
    "VIP_INVALID_COMMAND",
    "VIP_REQUEST_STATUS_FAILED",
    "VIP_READ_ERROR",
    "VIP_DataNotFound",
    "VIP_Failed",
    "IncorrectVIPNumberFormat",
    "VIPNumberFailedToBuild",
    "VIP_EROR_KeyConfigData",
    "KABALodgingInterfaceTranslationError",
    "KABALodgingInterfaceWSURLError",
    "ATLASIllegalCmdRcv",
    "ATLASIllegalField",
    "ATLASEncoderError",
    "ATLASReaderError",
    "ATLASInsufficientData",
    "ATLASTooMuchData",
    "ATLASNoInnerDoorsSelected",
    "ATLASFailed",
    "ATLASDecodingError",
];
