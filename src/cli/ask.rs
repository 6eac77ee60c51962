//! Questions to the person at the terminal: a consent, and passwords that are not shown.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::{Zeroize as _, Zeroizing};

use crate::exit::{Exit, Failure};
use crate::run::{Run, Stopped};
use crate::secret::{Secret, SecretSource};

/// No line that a person types is longer.
const LINE_BYTES_MAX: usize = 4096;

/// Asks the person at the terminal for a yes; elsewhere `--yes` must have been given. A signal meanwhile is a no.
pub(super) async fn consent(verb: &'static str, question: String, run: &Run) -> Result<(), Failure> {
    let asked = tokio::task::spawn_blocking(move || yes(verb, &question));
    let answer = run.cancel.run_until_cancelled(asked).await.ok_or(Stopped)?;
    answer.unwrap_or_else(|error| Err(unconfirmed(&format!("{verb}: ask for consent: {error}"))))
}

fn yes(verb: &str, question: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(unconfirmed(&format!("{verb}: nobody is at the terminal to confirm the plan")));
    }
    let mut line = String::new();
    let asked = prompt(&format!("{question} Type yes: ")).and_then(|()| io::stdin().read_line(&mut line));
    asked.map_err(|error| unconfirmed(&format!("{verb}: ask for consent: {error}")))?;
    if line.trim() == "yes" { Ok(()) } else { Err(unconfirmed(&format!("{verb}: not confirmed, nothing was written"))) }
}

pub(super) fn unconfirmed(message: &str) -> Failure {
    Failure::new(Exit::Usage, message).hinting("add `--yes`, or look first with `--dry-run`")
}

/// Asks for a new secret, twice. `option` is what to give where nobody is at the terminal.
pub(super) fn new_secret(what: &str, option: &str) -> Result<Secret, Failure> {
    let first = secret(&format!("new {what}"), option)?;
    let again = secret(&format!("the new {what} again"), option)?;
    if first == again {
        return Ok(first);
    }
    let failure = Failure::new(Exit::Usage, format!("read the new {what}: the two do not agree, nothing was changed"));
    Err(failure.hinting("type the same twice"))
}

/// Reads a new secret from a command, twice: what a generator prints once, nobody could give again.
pub(super) fn steady(what: &str, command: &str) -> Result<Secret, Failure> {
    let source = SecretSource::Command(command.to_owned());
    let first = source.read()?;
    if first == source.read()? {
        return Ok(first);
    }
    let failure = Failure::new(Exit::Usage, format!("read the {what}: {source} prints another each time"));
    Err(failure.hinting("keep what it prints first, in a file or a vault, and let the command read it from there"))
}

/// Asks for a secret and does not show what is typed.
pub(super) fn secret(what: &str, option: &str) -> Result<Secret, Failure> {
    let refusal = |reason: &dyn std::fmt::Display| {
        Failure::new(Exit::Usage, format!("read the {what}: {reason}")).hinting(format!("give it with `{option}`"))
    };
    if !io::stdin().is_terminal() {
        return Err(refusal(&"nobody is at the terminal to type it"));
    }
    match hidden_line(&format!("Type {what}: ")).map_err(|error| refusal(&error))? {
        Some(line) => Ok(Secret::typed(&line)?),
        None => Err(Failure::new(Exit::Interrupted, Stopped.to_string())),
    }
}

/// Reads a line byte by byte while the terminal shows nothing; `None` where it is broken off with ^C or ^D.
fn hidden_line(question: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    const BACKSPACES: [u8; 2] = [8, 127];
    const ERASE_LINE: u8 = 21;
    let _hidden = Hidden::on_stdin()?;
    prompt(question)?;
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX));
    // Not through a buffer that nobody wipes.
    let mut input = std::fs::File::from(rustix::io::dup(io::stdin())?);
    let mut byte = [0];
    let whole = loop {
        if input.read(&mut byte)? == 0 || matches!(byte[0], INTERRUPT | END) {
            break false;
        }
        match byte[0] {
            b'\r' | b'\n' => break true,
            ERASE_LINE => line.zeroize(),
            letter if BACKSPACES.contains(&letter) => erase_letter(&mut line),
            letter if line.len() < LINE_BYTES_MAX => line.push(letter),
            _ => {}
        }
        byte.zeroize();
    };
    prompt("\n")?;
    Ok(whole.then_some(line))
}

/// Takes the last letter back, all its bytes.
fn erase_letter(line: &mut Vec<u8>) {
    while let Some(byte) = line.pop() {
        let is_first = byte & 0b1100_0000 != 0b1000_0000;
        if is_first {
            break;
        }
    }
}

fn prompt(text: &str) -> io::Result<()> {
    let mut err = io::stderr().lock();
    write!(err, "{text}").and_then(|()| err.flush())
}

/// A terminal that shows nothing and gives each byte at once, ^C included, until it is dropped: a signal in between would leave the
/// shell without an echo.
struct Hidden(Termios);

impl Hidden {
    fn on_stdin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
        hidden.special_codes[SpecialCodeIndex::VMIN] = 1;
        hidden.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_taken_back_with_all_its_bytes() {
        let mut line = "a주é".as_bytes().to_vec();
        erase_letter(&mut line);
        assert_eq!(line, "a주".as_bytes());
        erase_letter(&mut line);
        erase_letter(&mut line);
        erase_letter(&mut line);
        assert_eq!(line, b"");
    }
}
