//! Stable codes for what goes wrong, with a page each.
//!
//! **Owns:** [`ErrorCode`]: the number, the title and the page of each kind of error. **Does not know:** exit codes, HTTP.
//! **Invariants:** a number keeps its meaning in every release and is never used again; each code has a page that says what
//! happened, what the causes are and what to do.

mod from;

use std::{fmt, str::FromStr};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $title:literal;)+) => {
        /// A kind of error, by the same code in every protocol and on the command line.
        ///
        /// LF00xx: appends, reads and consumers. LF01xx: opening a store. LF02xx: the command line and the settings of the
        /// server. LF03xx: HTTP. LF04xx: authentication and authorization.
        ///
        /// ```
        /// use leftfold_error_codes::ErrorCode;
        ///
        /// let code: ErrorCode = "LF0002".parse().unwrap();
        /// assert_eq!(code, ErrorCode::WrongRevision);
        /// assert_eq!(code.title(), "Wrong expected revision");
        /// assert!(code.page().contains("Load the stream again"));
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl ErrorCode {
            /// All codes, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns the number, for example `LF0002`.
            #[must_use]
            pub const fn number(self) -> &'static str {
                match self {
                    $(Self::$variant => $number,)+
                }
            }

            /// Returns the kind of error in a few words.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$variant => $title,)+
                }
            }

            /// Returns the page of the code, in Markdown.
            #[must_use]
            pub const fn page(self) -> &'static str {
                match self {
                    $(Self::$variant => include_str!(concat!("../pages/", $number, ".md")),)+
                }
            }
        }
    };
}

codes! {
    /// Invalid request.
    InvalidRequest = "LF0001", "Invalid request";
    /// Wrong expected revision.
    WrongRevision = "LF0002", "Wrong expected revision";
    /// Append condition failed.
    ConditionFailed = "LF0003", "Append condition failed";
    /// Stream permanently deleted.
    StreamDeleted = "LF0004", "Stream permanently deleted";
    /// Append partly stored already.
    PartlyStored = "LF0005", "Append partly stored already";
    /// Outcome unknown.
    OutcomeUnknown = "LF0006", "Outcome unknown";
    /// Store unavailable.
    StoreUnavailable = "LF0007", "Store unavailable";
    /// Stored data corrupt.
    Corrupt = "LF0008", "Stored data corrupt";
    /// Scavenge already running.
    ScavengeRunning = "LF0009", "Scavenge already running";
    /// Consumer claimed by another holder.
    ConsumerHeld = "LF0010", "Consumer claimed by another holder";
    /// Consumer claim lost.
    ConsumerClaimLost = "LF0011", "Consumer claim lost";
    /// Consumer not found.
    ConsumerNotFound = "LF0012", "Consumer not found";
    /// Already exists.
    AlreadyExists = "LF0013", "Already exists";
    /// Too many consumers.
    ConsumersLimit = "LF0014", "Too many consumers";
    /// Owned by another server.
    OwnedElsewhere = "LF0015", "Owned by another server";
    /// Store in use by another process.
    StoreInUse = "LF0101", "Store in use by another process";
    /// Store not found.
    StoreNotFound = "LF0102", "Store not found";
    /// Directory holds a foreign file.
    ForeignFile = "LF0103", "Directory holds a foreign file";
    /// Format newer than this program.
    NewerFormat = "LF0104", "Format newer than this program";
    /// Schema not migrated.
    NotMigrated = "LF0105", "Schema not migrated";
    /// Database may lose acknowledged events.
    UnsafeDatabase = "LF0106", "Database may lose acknowledged events";
    /// Server or database unreachable.
    Unreachable = "LF0107", "Server or database unreachable";
    /// Invalid address.
    InvalidAddress = "LF0108", "Invalid address";
    /// File operation failed.
    FileFailed = "LF0109", "File operation failed";
    /// Command line not valid.
    Usage = "LF0201", "Command line not valid";
    /// Invalid line in an import.
    InvalidLine = "LF0202", "Invalid line in an import";
    /// Invalid setting.
    InvalidSetting = "LF0204", "Invalid setting";
    /// Address exposed without protection.
    ExposedServer = "LF0205", "Address exposed without protection";
    /// Address not available.
    AddressInUse = "LF0206", "Address not available";
    /// Cross-origin request rejected.
    CrossOrigin = "LF0301", "Cross-origin request rejected";
    /// Not found.
    NotFound = "LF0302", "Not found";
    /// Method not allowed.
    MethodNotAllowed = "LF0303", "Method not allowed";
    /// Request timeout.
    RequestTimeout = "LF0304", "Request timeout";
    /// Content too large.
    ContentTooLarge = "LF0305", "Content too large";
    /// Unsupported media type.
    UnsupportedMediaType = "LF0306", "Unsupported media type";
    /// Authentication required.
    Unauthenticated = "LF0401", "Authentication required";
    /// Too many failed authentications.
    TooManyFailures = "LF0402", "Too many failed authentications";
    /// Access denied.
    AccessDenied = "LF0403", "Access denied";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.number())
    }
}

/// A text that is not the number of an [`ErrorCode`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown error code: {0:?}; expected LF and four digits, as in LF0002")]
pub struct UnknownErrorCode(String);

impl FromStr for ErrorCode {
    type Err = UnknownErrorCode;

    /// Parses a number; upper and lower case are equal.
    fn from_str(text: &str) -> Result<Self, UnknownErrorCode> {
        let code = Self::ALL
            .iter()
            .find(|code| code.number().eq_ignore_ascii_case(text));
        code.copied()
            .ok_or_else(|| UnknownErrorCode(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_that_says_what_to_do() {
        for code in ErrorCode::ALL {
            let page = code.page();
            assert!(
                page.starts_with(&format!("# {code}: {}\n", code.title())),
                "{code}"
            );
            for section in ["\n## Causes\n\n- ", "\n## What to do\n\n- "] {
                assert!(page.contains(section), "{code} lacks {section:?}");
            }
        }
    }

    #[test]
    fn numbers_are_unique_ordered_and_parse_back() {
        assert!(ErrorCode::ALL.is_sorted_by(|a, b| a.number() < b.number()));
        for code in ErrorCode::ALL {
            let digits = code.number().strip_prefix("LF").unwrap();
            assert!(digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit()));
            assert_eq!(code.number().to_lowercase().parse(), Ok(*code));
        }
        assert!("LF2".parse::<ErrorCode>().is_err());
    }
}
