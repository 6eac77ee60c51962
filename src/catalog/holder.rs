//! Which process holds a run without an end, and whether it still lives.
//!
//! A process is named by the boot, its id and its start, so that neither a reboot nor a reused id revives a dead run.

use std::fs;

/// Names this process; `None` where `/proc` does not tell.
pub(super) fn this_process() -> Option<String> {
    name(std::process::id())
}

/// Tells whether the process of that name still runs.
pub(super) fn is_alive(holder: &str) -> bool {
    let id = holder.split(' ').nth(1).and_then(|id| id.parse().ok());
    id.and_then(name).is_some_and(|name| name == holder)
}

fn name(id: u32) -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let fields = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let start = start_ticks(&fields)?;
    Some(format!("{} {id} {start}", boot.trim()))
}

/// Reads field 22 of `/proc/<id>/stat`. The program's name, in parentheses, may hold spaces and parentheses itself.
fn start_ticks(stat: &str) -> Option<&str> {
    let (_, rest) = stat.rsplit_once(')')?;
    let state_and_on: Vec<&str> = rest.split_whitespace().collect();
    // A zombie has ended in all but name.
    if matches!(state_and_on.first(), Some(&("Z" | "X"))) {
        return None;
    }
    state_and_on.get(19).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_another_of_its_id_does_not() {
        let holder = this_process().unwrap_or_default();
        assert!(is_alive(&holder), "{holder}");
        assert!(!is_alive(&format!("{holder}9")));
        assert!(!is_alive(""));
    }

    #[test]
    fn a_program_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) S (b) R 1 7 7 0 -1 4 5 0 0 0 1 2 0 0 20 0 1 0 8842 9 9";
        assert_eq!(start_ticks(stat), Some("8842"));
        assert_eq!(start_ticks(&stat.replace(" R ", " Z ")), None);
    }
}
