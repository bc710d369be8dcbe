//! Bridges, which have no counterpart yet.

use super::draft::Draft;
use super::lines::Line;

/// Tells of a bridge: `lines` are its own, the first names it.
pub(super) fn take(lines: &[Line], draft: &mut Draft) {
    for (number, line) in lines.iter().enumerate() {
        let text = match number {
            0 => {
                "not yet: the broker makes no bridges of its own. Let the other broker make it, with its \
                 directions the other way round (in becomes out), or keep a Mosquitto for it"
            }
            _ => "not yet, with its bridge",
        };
        draft.note(line, text);
    }
}
