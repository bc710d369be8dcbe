//! Values of Mosquitto's lines.

use super::draft::Draft;
use super::lines::Line;
use std::ops::RangeInclusive;

pub(super) fn is_true(line: &Line) -> bool {
    line.value == "true" || line.value == "1"
}

pub(super) fn is_false(line: &Line) -> bool {
    line.value == "false" || line.value == "0"
}

/// A whole number within what our key takes; one outside is told, and made to fit.
pub(super) fn number(line: &Line, range: RangeInclusive<i64>, draft: &mut Draft) -> Option<i64> {
    let Ok(said) = line.value.parse::<i64>() else {
        draft.note(line, "left out: it is no whole number");
        return None;
    };
    let (min, max) = (*range.start(), *range.end());
    let fits = said.clamp(min, max);
    if fits != said {
        draft.note(
            line,
            format!("{fits} is said in its place: here it is from {min} to {max}"),
        );
    }
    Some(fits)
}

/// A duration such as `14d`, in seconds.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let of_unit = match unit {
        'h' => 3_600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        'm' => 30 * 86_400,
        'y' => 365 * 86_400,
        _ => return None,
    };
    let count = text.strip_suffix(unit)?.parse::<i64>().ok()?;
    count.checked_mul(of_unit).filter(|seconds| *seconds >= 0)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(seconds("2h"), Some(7_200));
        assert_eq!(seconds("14d"), Some(14 * 86_400));
        assert_eq!(seconds("1y"), Some(365 * 86_400));
        for wrong in ["", "d", "14", "14s", "-1d", "99999999999999999y", "1ä"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
