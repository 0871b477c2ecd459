//! Forms whose key names their file as `${filename}`: the name comes after the key, and whoever judges the form's policy has to
//! see the key as it will be. So the beginning of a form is held until its file begins.

use bytes::{Bytes, BytesMut};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request};

/// A form's fields before its file are no longer than this.
const MOST: usize = 64 << 10;
const NAMED: &[u8] = b"${filename}";

/// Holds the beginning of a form.
#[derive(Default)]
pub struct Held {
    form: BytesMut,
    /// Where the line begins that is not whole yet: those before it are looked at.
    looked: usize,
}

impl Held {
    /// For a request that may be a form.
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        let kind = request.headers().get(CONTENT_TYPE)?.as_bytes();
        let is_form = kind
            .to_ascii_lowercase()
            .starts_with(b"multipart/form-data");
        (is_form && request.method() == Method::POST).then(Self::default)
    }

    /// The next bytes come in; what can go on, once the file has begun.
    pub fn take(&mut self, bytes: &[u8]) -> Option<Bytes> {
        self.form.extend_from_slice(bytes);
        if bytes.contains(&b'\n') {
            let new = self.form.get(self.looked..).unwrap_or_default();
            if let Some(name) = file_of(new) {
                return Some(named(&self.form, &name));
            }
            let end = new.iter().rposition(|byte| *byte == b'\n');
            self.looked += end.map_or(0, |end| end + 1);
        }
        (self.form.len() > MOST).then(|| self.rest())
    }

    /// What came in, as it is.
    pub fn rest(&mut self) -> Bytes {
        self.form.split().freeze()
    }
}

/// The name in the line with which the file begins, once all of that line is there; empty if it has none.
fn file_of(form: &[u8]) -> Option<Vec<u8>> {
    let line = form
        .split_inclusive(|byte| *byte == b'\n')
        .find(|line| line.ends_with(b"\n") && is_field(line, b"name=\"file\""))?;
    let begin = b"filename=\"";
    let Some(start) = at(line, begin) else {
        return Some(Vec::new());
    };
    let rest = line.get(start + begin.len()..).unwrap_or_default();
    let name = rest.split(|byte| *byte == b'"').next().unwrap_or_default();
    // Some send the whole path.
    let name = name.rsplit(|byte| matches!(byte, b'/' | b'\\')).next();
    name.map(<[u8]>::to_vec)
}

/// The form with the name in its key.
fn named(form: &[u8], name: &[u8]) -> Bytes {
    let mut told = BytesMut::with_capacity(form.len() + name.len());
    let (mut in_key, mut in_value) = (false, false);
    for line in form.split_inclusive(|byte| *byte == b'\n') {
        match at(line, NAMED).filter(|_| in_value) {
            Some(start) => {
                let (before, rest) = line.split_at(start);
                told.extend_from_slice(before);
                told.extend_from_slice(name);
                told.extend_from_slice(rest.get(NAMED.len()..).unwrap_or_default());
            }
            None => told.extend_from_slice(line),
        }
        // A value is the line behind an empty one.
        in_value = in_key && line == b"\r\n" && !in_value;
        in_key = is_field(line, b"name=\"key\"") || (in_key && line != b"\r\n");
    }
    told.freeze()
}

fn is_field(line: &[u8], name: &[u8]) -> bool {
    let line = line.to_ascii_lowercase();
    line.starts_with(b"content-disposition:")
        && line
            .split(|byte| *byte == b';')
            .any(|part| part.trim_ascii() == name)
}

fn at(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|some| some == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(key: &str, file: &str) -> String {
        format!(
            "--x\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\n{key}\r\n\
             --x\r\nContent-Disposition: form-data; name=\"x-amz-meta-a\"\r\n\r\n${{filename}}\r\n\
             --x\r\nContent-Disposition: form-data; name=\"file\"{file}\r\n\r\n${{filename}} filename=\"other\"\r\n--x--\r\n"
        )
    }

    #[test]
    fn the_key_gets_the_name_of_the_file_and_nothing_else_does() {
        let sent = form("in/${filename}", "; filename=\"C:\\up\\f \u{fc}.txt\"");
        let wanted = form("in/f \u{fc}.txt", "; filename=\"C:\\up\\f \u{fc}.txt\"");
        for piece in [1, 7, sent.len()] {
            let (mut held, mut going, mut told) = (Held::default(), false, Vec::new());
            for bytes in sent.as_bytes().chunks(piece) {
                match going {
                    true => told.extend_from_slice(bytes),
                    false => {
                        if let Some(some) = held.take(bytes) {
                            going = true;
                            told.extend_from_slice(&some);
                        }
                    }
                }
            }
            assert_eq!(String::from_utf8(told).unwrap(), wanted, "{piece}");
        }
        let unnamed = form("in/${filename}", "");
        let told = Held::default().take(unnamed.as_bytes()).unwrap();
        assert!(told == form("in/", "").as_bytes());
    }

    #[test]
    fn what_is_no_form_or_has_no_file_goes_on_as_it_is() {
        let mut held = Held::default();
        assert_eq!(held.take(b"--x\r\n"), None);
        assert_eq!(held.rest(), b"--x\r\n"[..]);
        let long = vec![b'x'; MOST + 1];
        assert!(held.take(&long).unwrap() == long);
    }
}
