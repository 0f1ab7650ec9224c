//! The message as a file on the program's standard input.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};

use sendmail_core::Message;

/// Writes `message` with LF line ends into an unlinked temporary file and goes back to its start.
///
/// Each run has a file of its own: two programs that were given the same open file would share its
/// position, and a helper that the first left behind could move it under the second.
pub(crate) fn file_of(message: &Message) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    let mut writer = BufWriter::with_capacity(64 << 10, &mut file);
    write_local(message.as_bytes(), &mut writer)?;
    writer.flush()?;
    drop(writer);
    file.rewind()?;
    Ok(file)
}

/// Writes `wire`, in which every line ends in CRLF, with LF in its place.
fn write_local(wire: &[u8], to: &mut impl Write) -> io::Result<()> {
    for line in wire.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\r\n") {
            Some(text) => {
                to.write_all(text)?;
                to.write_all(b"\n")?;
            }
            None => to.write_all(line)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use proptest::prelude::*;
    use sendmail_core::Timestamp;

    #[test]
    fn the_file_holds_the_message_and_is_read_from_its_start() {
        let raw = b"Message-ID: <a@b>\r\nDate: d\r\n\r\n.\r\n..\r\n\r\n";
        let message = Message::from_raw(raw, Timestamp::EPOCH, "b").unwrap();
        let mut text = String::new();
        file_of(&message).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "Message-ID: <a@b>\nDate: d\n\n.\n..\n\n");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_with_the_carriage_returns(lines in proptest::collection::vec("[^\r\n]{0,40}", 0..20)) {
            let wire: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let mut local = Vec::new();
            write_local(wire.as_bytes(), &mut local).unwrap();
            let local = String::from_utf8(local).unwrap();
            prop_assert!(!local.contains('\r'));
            prop_assert_eq!(local.replace('\n', "\r\n"), wire);
        }
    }
}
