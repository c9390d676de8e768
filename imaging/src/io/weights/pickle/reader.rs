//! A cursor over the bytes of a pickle.

use nephron_compute::shown;

/// A parsed value, or a message that says what is wrong with the file.
pub(super) type Parsed<T> = Result<T, String>;

/// The bytes of a pickle and the position of the next one.
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Reader<'_> {
    pub(super) fn byte(&mut self) -> Parsed<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| "is cut short".into())
    }

    pub(super) fn take(&mut self, length: usize) -> Parsed<&[u8]> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let left = self.bytes.len() - self.at;
        let end = end.ok_or_else(|| format!("is cut short: {length} bytes expected, {left} found"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub(super) fn skip(&mut self, length: usize) -> Parsed<()> {
        self.take(length).map(drop)
    }

    pub(super) fn length32(&mut self) -> Parsed<usize> {
        let length = self.array().map(u32::from_le_bytes)?;
        usize::try_from(length).map_err(|_| format!("has a length of {length}"))
    }

    pub(super) fn length64(&mut self) -> Parsed<usize> {
        let length = self.array().map(u64::from_le_bytes)?;
        usize::try_from(length).map_err(|_| format!("has a length of {length}"))
    }

    pub(super) fn line(&mut self) -> Parsed<String> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|b| *b == b'\n').ok_or("is cut short inside a name")?;
        let text = shown(&String::from_utf8_lossy(&rest[..length]));
        self.at += length + 1;
        Ok(text)
    }
}
