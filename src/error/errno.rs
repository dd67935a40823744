//! The errno values that the library names.

use std::fmt;

/// An errno value of Linux; positive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident = $value:literal, $symbol:literal, $text:literal;)*) => {
        impl Errno {
            $(
                #[doc = concat!("`", $symbol, "`: ", $text, ".")]
                pub const $name: Self = Self($value);
            )*

            /// All values that the library names, in ascending order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The symbol of this value, or `None` for a value that the library does not name.
            #[must_use]
            pub const fn symbol(self) -> Option<&'static str> {
                match self.0 { $($value => Some($symbol),)* _ => None }
            }

            /// The usual text of this value.
            #[must_use]
            pub const fn text(self) -> Option<&'static str> {
                match self.0 { $($value => Some($text),)* _ => None }
            }
        }
    };
}

errnos! {
    PERM = 1, "EPERM", "operation not permitted";
    NOENT = 2, "ENOENT", "no such file or directory";
    INTR = 4, "EINTR", "interrupted";
    IO = 5, "EIO", "input/output error";
    NXIO = 6, "ENXIO", "no such device or address";
    TOOBIG = 7, "E2BIG", "argument list too long";
    BADF = 9, "EBADF", "bad file descriptor";
    AGAIN = 11, "EAGAIN", "try again";
    NOMEM = 12, "ENOMEM", "out of memory";
    ACCESS = 13, "EACCES", "permission denied";
    FAULT = 14, "EFAULT", "bad address";
    BUSY = 16, "EBUSY", "resource busy";
    EXIST = 17, "EEXIST", "file exists";
    XDEV = 18, "EXDEV", "cross-device link";
    NODEV = 19, "ENODEV", "no such device";
    NOTDIR = 20, "ENOTDIR", "not a directory";
    ISDIR = 21, "EISDIR", "is a directory";
    INVAL = 22, "EINVAL", "invalid argument";
    NFILE = 23, "ENFILE", "too many open files in system";
    MFILE = 24, "EMFILE", "too many open files";
    NOTTY = 25, "ENOTTY", "inappropriate ioctl for device";
    TXTBSY = 26, "ETXTBSY", "text file busy";
    FBIG = 27, "EFBIG", "file too large";
    NOSPC = 28, "ENOSPC", "no space left on device";
    ROFS = 30, "EROFS", "read-only file system";
    MLINK = 31, "EMLINK", "too many links";
    RANGE = 34, "ERANGE", "result too large";
    NAMETOOLONG = 36, "ENAMETOOLONG", "file name too long";
    NOLCK = 37, "ENOLCK", "no locks available";
    NOSYS = 38, "ENOSYS", "function not implemented";
    NOTEMPTY = 39, "ENOTEMPTY", "directory not empty";
    LOOP = 40, "ELOOP", "too many levels of symbolic links";
    NODATA = 61, "ENODATA", "no data available";
    OVERFLOW = 75, "EOVERFLOW", "value too large for data type";
    OPNOTSUPP = 95, "EOPNOTSUPP", "operation not supported";
    NOTCONN = 107, "ENOTCONN", "transport endpoint is not connected";
    STALE = 116, "ESTALE", "stale file handle";
    DQUOT = 122, "EDQUOT", "disk quota exceeded";
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.symbol(), self.text()) {
            (Some(symbol), Some(text)) => write!(f, "{text} ({symbol})"),
            _ => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.symbol() {
            Some(symbol) => f.write_str(symbol),
            None => write!(f, "errno {}", self.0),
        }
    }
}
