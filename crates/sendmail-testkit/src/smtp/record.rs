//! What a [`ScriptedServer`](super::ScriptedServer) has seen.

/// A line that the server took for a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The line, without its end.
    pub line: String,
    /// Which read of the session it came with: commands with the same number came in one piece.
    pub read: usize,
    /// Whether it came over TLS.
    pub encrypted: bool,
}

/// A message whose final dot was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The parameter of MAIL between the angle brackets.
    pub reverse_path: String,
    /// The whole MAIL command.
    pub mail: String,
    /// The recipients that were accepted, without angle brackets.
    pub recipients: Vec<String>,
    /// The body, with the doubled dots undone.
    pub bytes: Vec<u8>,
    /// Whether it was answered with a 2yz.
    pub accepted: bool,
    /// Whether it came over TLS.
    pub encrypted: bool,
    /// In which session, counted from 1.
    pub session: usize,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Session {
    /// The commands, in order; lines that continue AUTH are among them.
    pub commands: Vec<Command>,
    /// All that the client sent, as it came out of TLS.
    pub raw: Vec<u8>,
    /// Whether TLS was set up.
    pub encrypted: bool,
    /// Whether a TLS handshake failed.
    pub handshake_failed: bool,
    /// Whether the session is over.
    pub ended: bool,
}

impl Session {
    /// The commands' lines.
    #[must_use]
    pub fn lines(&self) -> Vec<&str> {
        self.commands.iter().map(|command| command.line.as_str()).collect()
    }

    /// The commands' first words, in capitals.
    #[must_use]
    pub fn verbs(&self) -> Vec<String> {
        self.commands.iter().map(|command| verb(&command.line)).collect()
    }

    /// Whether MAIL, RCPT and DATA came in one piece at least once.
    #[must_use]
    pub fn is_pipelined(&self) -> bool {
        let reads_of = |word: &str| {
            let of_word = self.commands.iter().filter(|command| verb(&command.line) == word);
            of_word.map(|command| command.read).collect::<Vec<_>>()
        };
        let (rcpt, data) = (reads_of("RCPT"), reads_of("DATA"));
        reads_of("MAIL").iter().any(|read| rcpt.contains(read) && data.contains(read))
    }
}

pub(super) fn verb(line: &str) -> String {
    line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase()
}
