//! What stands in a capture's way: a line that is cut anywhere, a disk that is full. Nothing is lost, and it goes on by itself.

use std::fs;
use std::process::Command;

use super::{Desk, caught_up, files_of, until};
use crate::dump::cut::{Dice, Line};
use crate::faults::small_disk;
use crate::servers::Product;

impl Desk {
    fn edit_policy(&self, from: &str, to: &str) {
        let path = self.path("policies/mall.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replace(from, to)).unwrap();
    }
}

#[test]
#[ignore = "needs the servers of scripts/lab; scripts/test runs it"]
fn a_line_that_is_cut_anywhere_costs_no_byte() {
    let desk = Desk::new(Product::MariaDb);
    let line = Line::to(&desk.server);
    let socket = format!("socket = \"{}\"", desk.server.socket().display());
    desk.edit_policy(&socket, &format!("host = \"127.0.0.1\"\nport = {}\ntls = \"off\"", line.port()));
    let (mut dice, mut cuts) = (Dice::seeded(), 0);
    for n in 0..8 {
        desk.insert(&format!("REPEAT('{n}', 60000)"));
        if n % 3 == 2 {
            desk.flush();
        }
        line.cut_at(dice.up_to(60_000), dice.cut());
        let ended = desk.bkp(&["binlog", "capture", "mall"]);
        let was_cut = line.mend().1;
        // What is cut behind the last byte that was wanted harms nobody.
        assert!(ended.code == Some(0) || (was_cut && ended.code == Some(1)), "{ended:?}");
        cuts += usize::from(ended.code == Some(1));
    }
    assert!(cuts >= 2, "{cuts}");
    desk.capture();
    let chain = desk.chain();
    assert_eq!((chain["epochs"].as_array().unwrap().len(), &chain["epochs"][0]["gaps"]), (1, &serde_json::json!([])));
    assert_eq!(files_of(&chain, 0), desk.binlogs());
    desk.assert_exact();
}

#[test]
#[ignore = "needs root, to mount a tmpfs of its own, and the servers of scripts/lab; scripts/test runs it"]
fn a_full_disk_under_the_spool_is_told_frees_itself_and_keeps_nothing_from_coming_later() {
    let desk = Desk::new(Product::MySql);
    let disk = desk.path("disk");
    desk.edit_policy("interval = \"1s\"", &format!("interval = \"1s\"\nspool = \"{}\"", disk.display()));
    let unmount = small_disk(&disk, "6m");
    let daemon = desk.follow();
    caught_up(&desk);
    // More than fits, in files that the seal lets go of.
    for n in 0..6 {
        desk.insert(&format!("REPEAT('{n}', 2000000)"));
        desk.flush();
    }
    caught_up(&desk);
    // One event that is larger than the disk.
    desk.insert("REPEAT('x', 8000000)");
    let error = || desk.binlog_status()["error"].as_str().unwrap_or_default().to_owned();
    until("the full disk is told", || error().contains("o space left"));
    let told = desk.bkp(&["status", "mall"]).out;
    assert!(told.contains("the capture of `db1`'s binlog stands still"), "{told}");
    let more = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&disk).status().unwrap();
    assert!(more.success());
    caught_up(&desk);
    until("all is well again", || error().is_empty());
    assert_eq!(daemon.end(), Some(0));
    desk.capture();
    assert_eq!(desk.chain()["epochs"][0]["gaps"], serde_json::json!([]));
    desk.assert_exact();
    drop(unmount);
}
