//! Finding the end of a message body, strictly and as careless servers do.

/// The body in `bytes` and how many bytes it takes with its final dot; nothing if that is not there.
pub(super) fn split_body(bytes: &[u8], lenient: bool) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (line, end) = line_at(bytes, at, lenient)?;
        if line == b"." {
            return Some((body, end));
        }
        let from = if line.first() == Some(&b'.') { at + 1 } else { at };
        body.extend_from_slice(&bytes[from..end]);
        at = end;
    }
    None
}

/// The line that starts at `at`, without its end, and where the next one starts.
fn line_at(bytes: &[u8], at: usize, lenient: bool) -> Option<(&[u8], usize)> {
    let rest = &bytes[at..];
    if !lenient {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        return Some((&rest[..end], at + end + 2));
    }
    let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    let length = match (rest[end], rest.get(end + 1)) {
        (b'\r', Some(b'\n')) => 2,
        (b'\r', None) => return None,
        _ => 1,
    };
    Some((&rest[..end], at + end + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_ends_at_its_dot_and_its_dots_are_undone() {
        let (body, used) = split_body(b"..a\r\nb.\r\n\r\n.\r\nQUIT\r\n", false).unwrap();
        assert_eq!((&body[..], used), (&b".a\r\nb.\r\n\r\n"[..], 14));
        assert_eq!(split_body(b"a\r\n.\r", false), None);
        assert_eq!(split_body(b"a\n.\nb\r\n.\r\n", false).unwrap().0, b"a\n.\nb\r\n");
    }

    #[test]
    fn a_lenient_server_ends_it_at_any_lone_dot() {
        for bytes in [&b"a\n.\nMAIL"[..], b"a\r\n.\nMAIL", b"a\n.\r\nMAIL", b"a\r.\rMAIL"] {
            let (body, used) = split_body(bytes, true).unwrap();
            assert_eq!(&bytes[used..], b"MAIL", "{bytes:?}");
            assert!(body.starts_with(b"a"));
        }
    }
}
