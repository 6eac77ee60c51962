//! Secrets that a command prints.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::secret::error::SecretError;
use crate::secret::{SECRET_BUFFER, SECRET_BYTES_MAX};

/// A password store answers in seconds, or it waits for a person who is not there.
const COMMAND_TIME_MAX: Duration = Duration::from_mins(1);

/// Returns what `sh -c command` prints. It must end with status 0 within [`COMMAND_TIME_MAX`].
pub(super) fn output_of(command: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let fault =
        |fault: String| SecretError::Command { source_name: format!("command `{}`", program_of(command)), fault };
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| fault(format!("/bin/sh does not start: {error}")))?;
    let output = gather(child.stdout.take());
    let complaint = gather(child.stderr.take());
    let Ok(output) = output.recv_timeout(COMMAND_TIME_MAX) else {
        stop(&mut child);
        return Err(fault(format!("no end of its output after {} s", COMMAND_TIME_MAX.as_secs())));
    };
    let complaint = complaint.recv_timeout(COMMAND_TIME_MAX).unwrap_or_default();
    let status = child.wait().map_err(|error| fault(error.to_string()))?;
    if !status.success() {
        return Err(fault(failure(status, &output, &complaint)));
    }
    if output.len() as u64 > SECRET_BYTES_MAX {
        return Err(fault(format!("it printed more than {SECRET_BYTES_MAX} bytes, which no password is")));
    }
    Ok(output)
}

/// Returns the program's name: the first word that is not a variable's setting. Where the shell would have more to do than to
/// split and unquote words, what stands there may be a secret, and the name is the shell's.
pub(super) fn program_of(command: &str) -> String {
    let is_simple = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    let program = words(command).and_then(|words| words.into_iter().find(|word| !is_setting(word)));
    program.filter(|word| !word.is_empty() && word.chars().all(is_simple)).unwrap_or_else(|| "sh".to_owned())
}

fn is_setting(word: &str) -> bool {
    let name = word.split_once('=').map(|(name, _)| name);
    name.is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

/// Splits a command into words as the shell does, up to the first sign of its grammar; `None` where a quote does not end or a
/// value is computed.
fn words(command: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = command.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None | Some('"'), '`') => return None,
            (None | Some('"'), '$') if letters.as_str().starts_with('(') => return None,
            (None | Some('"'), '\\') => word.get_or_insert_default().push(letters.next()?),
            (Some(end), _) if letter == end => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(letter),
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, ';' | '|' | '&' | '<' | '>' | '\n') => break,
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// Reads a pipe to its end on a thread of its own, and keeps a little more than a secret may have.
fn gather(pipe: Option<impl Read + Send + 'static>) -> Receiver<Zeroizing<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut kept = Zeroizing::new(Vec::with_capacity(SECRET_BUFFER));
        if let Some(mut pipe) = pipe {
            let read = pipe.by_ref().take(SECRET_BYTES_MAX + 1).read_to_end(&mut kept);
            // The rest is read and dropped, so that the command does not die of a closed pipe.
            let rest = std::io::copy(&mut pipe, &mut std::io::sink());
            if read.and(rest.map(|_| 0)).is_err() {
                kept.clear();
            }
        }
        // Nobody listens after a time-out; then the bytes are wiped here.
        drop(sender.send(kept));
    });
    receiver
}

/// Says how the command failed: its status and the first line of its complaint, unless that repeats what it printed.
fn failure(status: ExitStatus, output: &[u8], complaint: &[u8]) -> String {
    const COMPLAINT_CHARS_MAX: usize = 200;
    let complaint = String::from_utf8_lossy(complaint);
    let line = complaint.lines().next().unwrap_or_default().trim();
    let printed = String::from_utf8_lossy(output);
    let leaks = printed.lines().map(str::trim).any(|secret| !secret.is_empty() && line.contains(secret));
    if line.is_empty() || leaks {
        return status.to_string();
    }
    let line: String = line.chars().take(COMPLAINT_CHARS_MAX).collect();
    format!("{status}, `{line}`")
}

fn stop(child: &mut Child) {
    // Both fail only for a child that has ended by itself.
    drop(child.kill());
    drop(child.wait());
}
