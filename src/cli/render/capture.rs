//! What a capture did, and the chain of what was captured.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::capture::chain::{Chain, Epoch, Gap, Segment};
use crate::capture::{Followed, Sealed};
use crate::cli::render::copy::{copies, copies_json};
use crate::cli::render::{Told, shown};
use crate::cycle::done::{CaptureDone, Captured};
use crate::human;
use crate::mysql::product;
use crate::policy::Policy;

pub(super) fn captured(told: &mut Told, policy: &Policy, done: &CaptureDone) {
    for (source, result) in &done.sources {
        match result {
            Ok(Captured::Elsewhere) => line!(told.text, "{source:<10} binlog: another capture goes on"),
            Ok(Captured::Here { followed, sealed }) => {
                came(&mut told.text, policy, source, followed);
                if let Some(sealed) = sealed {
                    stored(&mut told.text, sealed);
                }
            }
            Ok(Captured::Broken { failure, sealed }) => {
                told.fail(&format!("{source}: "), failure);
                stored(&mut told.text, sealed);
            }
            Err(failure) => told.fail(&format!("{source}: "), failure),
        }
    }
    copies(told, &done.copies);
}

fn came(text: &mut String, policy: &Policy, source: &str, followed: &Followed) {
    let as_of =
        followed.as_of.map_or_else(String::new, |as_of| format!(", up to {}", human::time(as_of, policy.timezone)));
    line!(text, "{source:<10} binlog: {} captured{as_of}", human::bytes(followed.bytes));
    if let Some((number, why)) = followed.began {
        line!(text, "{:<10} epoch {number} began: {}", "", why.words());
    }
    for gap in &followed.gaps {
        line!(text, "{:<10} {}", "", gap_line(gap));
    }
}

fn stored(text: &mut String, sealed: &Sealed) {
    line!(
        text,
        "{:<10} snapshot {}: {}, {} in it, {} read, {} stored",
        "",
        sealed.id.short(),
        human::counted(sealed.segments as u64, "segment", "segments"),
        human::bytes(sealed.bytes),
        human::bytes(sealed.bytes_read),
        human::bytes(sealed.bytes_stored),
    );
}

pub(super) fn captured_json(done: &CaptureDone) -> Value {
    let of = |(source, result): &(String, Result<Captured, _>)| match result {
        Ok(Captured::Broken { failure, sealed }) => json!({ "source": source, "failure": failure, "sealed": sealed }),
        Ok(captured) => json!({ "source": source, "captured": captured }),
        Err(failure) => json!({ "source": source, "failure": failure }),
    };
    json!({ "sources": done.sources.iter().map(of).collect::<Vec<_>>(), "copies": copies_json(&done.copies) })
}

fn gap_line(gap: &Gap) -> String {
    let missing =
        gap.missing.as_ref().map_or_else(String::new, |missing| format!(": {} are in no segment", shown(missing)));
    format!("GAP between {} and {}{missing}", shown(&gap.after), shown(&gap.before))
}

/// Tells the chain of a source: epochs, segments, gaps, and the moments that can be recovered.
pub(in crate::cli) fn chain(policy: &Policy, chain: &Chain, window: Option<(DateTime<Utc>, DateTime<Utc>)>) -> String {
    let mut text = String::new();
    for epoch in &chain.epochs {
        epoch_lines(&mut text, policy, &chain.source, epoch);
    }
    if chain.epochs.is_empty() {
        line!(text, "{}: nothing was captured yet", shown(&chain.source));
        return text;
    }
    match window {
        Some((from, to)) => line!(
            text,
            "recovery window: {} to {}",
            human::exact_time(from, policy.timezone),
            human::exact_time(to, policy.timezone)
        ),
        None => line!(text, "recovery window: none; no dump lies within the newest segments that follow each other"),
    }
    text
}

fn epoch_lines(text: &mut String, policy: &Policy, source: &str, epoch: &Epoch) {
    line!(
        text,
        "{}: epoch {} of {} {}, server {}, since {}: {}",
        shown(source),
        epoch.number,
        product::name(epoch.server.product),
        shown(&epoch.server.version),
        shown(&epoch.server.server),
        human::time(epoch.began, policy.timezone),
        epoch.why.words(),
    );
    for segment in &epoch.segments {
        for gap in epoch.gaps.iter().filter(|gap| gap.before == segment.file) {
            line!(text, "  {}", gap_line(gap));
        }
        segment_line(text, policy, segment);
    }
}

fn segment_line(text: &mut String, policy: &Policy, segment: &Segment) {
    let time = |moment: Option<DateTime<Utc>>| {
        moment.map_or_else(|| "–".to_owned(), |moment| human::exact_time(moment, policy.timezone))
    };
    let open = if segment.is_closed { "" } else { " (open)" };
    line!(
        text,
        "  {} {:>9} {:>7} transactions  {} to {}  {}{open}",
        shown(&segment.file),
        human::bytes(segment.bytes),
        human::count(segment.transactions),
        time(segment.first),
        time(segment.last),
        shown(&segment.after),
    );
}
