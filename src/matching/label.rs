//! Keys as parts of stat names.

use super::KeyBuf;
use super::place::Fnv;

/// The longest label, in bytes.
const LONGEST: usize = 64;

/// How much of a longer one is kept beside the note.
const KEPT: usize = LONGEST - "~0123456789abcdef".len();

/// The key's label, as [`KeyBuf::label`] promises it.
pub(super) fn of(key: &KeyBuf) -> String {
    let mut label = String::with_capacity(LONGEST + 3);
    let mut cut = 0;
    for (position, part) in key.parts().enumerate() {
        let joint = (position > 0).then_some(Piece::Plain('|'));
        let last = part.len().saturating_sub(1);
        let pieces = part.iter().enumerate().map(|(at, byte)| match byte {
            b'.' if at > 0 && at < last => Piece::Plain('.'),
            _ => Piece::of(*byte),
        });
        for piece in joint.into_iter().chain(pieces) {
            piece.append(&mut label);
            if label.len() <= KEPT {
                cut = label.len();
            }
            if label.len() > LONGEST {
                // Whole escapes only: half of one would read as something else.
                label.truncate(cut);
                label.push('~');
                let digest = Fnv::default().bytes(key.as_bytes()).mixed();
                label.push_str(&format!("{digest:016x}"));
                return label;
            }
        }
    }
    label
}

enum Piece {
    Plain(char),
    Escaped(u8),
}

impl Piece {
    fn of(byte: u8) -> Self {
        match byte {
            b'.' | b'|' | b'%' | b'~' | b'"' | b'\'' | b'`' | b'\\' => Self::Escaped(byte),
            _ if byte.is_ascii_graphic() => Self::Plain(char::from(byte)),
            _ => Self::Escaped(byte),
        }
    }

    fn append(self, label: &mut String) {
        match self {
            Self::Plain(char) => label.push(char),
            Self::Escaped(byte) => label.push_str(&format!("%{byte:02X}")),
        }
    }
}
