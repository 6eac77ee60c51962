//! Charts as inline SVG. Places along the width are in percent and text is not scaled, so that one drawing suits a phone, a
//! screen and paper. Colours are classes of the page's style; each chart has a title, a description and a table beside it.

mod gantt;
mod history;
mod meter;

pub(super) use gantt::gantt;
pub(super) use history::history;
pub(super) use meter::meter;

/// Writes a part of a whole in percent, to a thousandth.
fn percent(part: u64, whole: u64) -> String {
    let thousandths = u128::from(part) * 100_000 / u128::from(whole.max(1));
    format!("{}.{:03}%", thousandths / 1000, thousandths % 1000)
}

/// Returns a part of a length in pixels.
fn pixels(part: u64, whole: u64, length: u64) -> u64 {
    let pixels = u128::from(part) * u128::from(length) / u128::from(whole.max(1));
    u64::try_from(pixels).unwrap_or(length)
}

/// Returns round moments from zero to the end of a scale, at most seven of them.
fn ticks(end_ms: u64) -> Vec<u64> {
    const STEPS_MS: [u64; 27] = [
        10,
        20,
        50,
        100,
        200,
        500,
        1_000,
        2_000,
        5_000,
        10_000,
        15_000,
        30_000,
        60_000,
        120_000,
        300_000,
        600_000,
        900_000,
        1_800_000,
        3_600_000,
        7_200_000,
        10_800_000,
        21_600_000,
        43_200_000,
        86_400_000,
        172_800_000,
        604_800_000,
        2_592_000_000,
    ];
    let fits = |step: &u64| end_ms / step <= 6;
    let step = STEPS_MS.into_iter().find(fits).unwrap_or(end_ms.max(1));
    (0..=end_ms / step).map(|tick| tick * step).collect()
}

/// Writes a round moment: `5 s`, not `5.0 s`.
fn tick_text(moment_ms: u64) -> String {
    match moment_ms {
        0 => "0".to_owned(),
        1_000..60_000 if moment_ms.is_multiple_of(1_000) => format!("{} s", moment_ms / 1_000),
        _ => crate::human::millis(moment_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_has_few_round_ticks_whatever_its_length() {
        for end in [1, 9, 480, 999, 1_000, 41_300, 843_000, 7_200_000, 400_000_000, u64::MAX] {
            let ticks = ticks(end);
            assert!((1..=7).contains(&ticks.len()), "{end}: {ticks:?}");
            assert!(ticks.last().is_some_and(|last| *last <= end), "{end}");
        }
        assert_eq!(ticks(41_300), [0, 10_000, 20_000, 30_000, 40_000]);
        assert_eq!(tick_text(30_000), "30 s");
    }

    #[test]
    fn a_part_is_drawn_to_scale_and_a_whole_of_zero_is_no_fault() {
        assert_eq!(percent(1, 3), "33.333%");
        assert_eq!(percent(u64::MAX, u64::MAX), "100.000%");
        assert_eq!(percent(0, 0), "0.000%");
        assert_eq!(pixels(1, 4, 200), 50);
    }
}
