//! Dot-stuffing (RFC 5321 section 4.5.2): a body as it goes on the wire, without its final dot.

/// Bytes that were to be sent as a body have a CR or LF that is not part of a CRLF, or no final CRLF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message has a bare CR or LF near byte {offset}, or does not end in CRLF")]
pub(crate) struct NotWireForm {
    pub(crate) offset: usize,
}

/// Checks that every line of `body` ends in CRLF and that there is no other CR or LF.
///
/// Done once more before the first byte is written, so that a receiver that takes a bare LF for
/// the end of a line can never be led to see the end of the message where it is not.
pub(crate) fn check_wire_form(body: &[u8]) -> Result<(), NotWireForm> {
    let mut rest = body;
    let mut offset = 0;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        let end = rest.get(at..).unwrap_or_default();
        let wrong = NotWireForm { offset: offset + at };
        rest = end.strip_prefix(b"\r\n").ok_or(wrong)?;
        offset += at + 2;
    }
    if rest.is_empty() && !body.is_empty() { Ok(()) } else { Err(NotWireForm { offset }) }
}

/// The lines of a body in wire form, cut into pieces of about `size` bytes, dots doubled.
///
/// Each piece ends at the end of a line. The pieces one after the other are the stuffed body.
pub(crate) fn stuffed_pieces(body: &[u8], size: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
    let mut lines = body.split_inclusive(|byte| *byte == b'\n').peekable();
    std::iter::from_fn(move || {
        lines.peek()?;
        let mut piece = Vec::with_capacity(size.min(body.len()) + 1024);
        for line in lines.by_ref() {
            if line.starts_with(b".") {
                piece.push(b'.');
            }
            piece.extend_from_slice(line);
            if piece.len() >= size {
                break;
            }
        }
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stuff(body: &[u8], size: usize) -> Vec<u8> {
        stuffed_pieces(body, size).flatten().collect()
    }

    /// The sentence of the RFC, word for word, on a list of lines.
    fn naive(lines: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in lines {
            if line.first() == Some(&b'.') {
                out.push(b'.');
            }
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    // Proves: B-line-ends
    #[test]
    fn only_leading_dots_are_doubled_and_nothing_is_added() {
        let body = b".\r\n..\r\na.b\r\n\r\n.x\r\n";
        assert_eq!(stuff(body, 1000), b"..\r\n...\r\na.b\r\n\r\n..x\r\n");
        assert_eq!(stuff(b"A: b\r\n\r\n", 1000), b"A: b\r\n\r\n");
    }

    #[test]
    fn a_piece_that_has_its_size_ends_there() {
        let pieces = |size| stuffed_pieces(b"ab\r\ncd\r\nef\r\n", size).collect::<Vec<_>>();
        assert_eq!(pieces(4), [b"ab\r\n", b"cd\r\n", b"ef\r\n"]);
        assert_eq!(pieces(5), [&b"ab\r\ncd\r\n"[..], b"ef\r\n"]);
    }

    #[test]
    fn bare_line_ends_are_found() {
        for (body, offset) in [
            (&b"a\nb\r\n"[..], 1),
            (b"a\r\n.\n\r\n", 4),
            (b"a\r\r\n", 1),
            (b"a\r\nb\r", 4),
            (b"a\r\nb", 3),
            (b"", 0),
        ] {
            assert_eq!(check_wire_form(body), Err(NotWireForm { offset }), "{body:?}");
        }
        assert_eq!(check_wire_form(b"a\r\n\r\nb\r\n"), Ok(()));
    }

    fn line() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![3 => Just(b'.'), 2 => any::<u8>()];
        let byte = byte.prop_filter("no line ends", |byte| !matches!(byte, b'\r' | b'\n'));
        proptest::collection::vec(byte, 0..6)
    }

    proptest! {
        #[test]
        fn it_does_what_the_rfc_says_in_pieces_of_any_size(
            lines in proptest::collection::vec(line(), 1..20), size in 1usize..40,
        ) {
            let body: Vec<u8> = lines.iter().flat_map(|l| [&l[..], b"\r\n"].concat()).collect();
            prop_assert_eq!(check_wire_form(&body), Ok(()));
            prop_assert_eq!(stuff(&body, size), naive(&lines));
            prop_assert!(stuffed_pieces(&body, size).all(|piece| piece.ends_with(b"\r\n")));
        }

        #[test]
        fn a_body_is_in_wire_form_exactly_if_its_line_ends_are_crlf(
            body in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.')], 0..12),
        ) {
            let text = String::from_utf8(body.clone()).unwrap();
            let without = text.replace("\r\n", "");
            let good = text.ends_with("\r\n") && !without.contains(['\r', '\n']);
            prop_assert_eq!(check_wire_form(&body).is_ok(), good);
        }
    }
}
