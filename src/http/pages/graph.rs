//! A small graph of what a path refers to, and of what those refer to among each other.

use std::collections::BTreeMap;

use maud::{Markup, html};

use crate::nix::path_info::PathInfo;
use crate::nix::store_path::StorePathHash;

/// More references than this are listed and not drawn.
pub(super) const DRAWN: usize = 24;
/// Units from one line to the next.
const LINE: usize = 26;
/// Where the column of references begins.
const COLUMN: usize = 330;
/// Letters of a name that are drawn.
const LETTERS: usize = 36;
/// How wide one of them is, at most.
const LETTER: usize = 8;

/// The graph; nothing where there is none to draw. `references` are those that are here. Whoever does not see it has
/// the list of the same.
pub(super) fn draw(info: &PathInfo, references: &[PathInfo]) -> Markup {
    if references.is_empty() || references.len() > DRAWN {
        return html! {};
    }
    let rows: BTreeMap<StorePathHash, usize> =
        references.iter().enumerate().map(|(row, info)| (info.path.hash(), row)).collect();
    let height = references.len() * LINE + 10;
    let own = height / 2;
    let y = |row: usize| row * LINE + LINE / 2 + 5;
    // Where the text of a row ends, and what leads from it to others begins.
    let end =
        |row: usize| COLUMN + LETTER * shortened(references[row].path.name(), LETTERS).len() + 8;
    let edges = references.iter().enumerate().flat_map(|(from, info)| {
        let to = info.references.iter().filter_map(|to| rows.get(&to.hash()).copied());
        to.filter(move |to| *to != from).map(move |to| (from, to))
    });
    html! {
        div class="scroll" {
            svg class="graph" viewBox={ "0 0 900 " (height) } aria-hidden="true" {
                @for row in 0..references.len() {
                    path class="edge own"
                        d={ "M250 " (own) "C290 " (own) " 290 " (y(row)) " " (COLUMN - 6) " " (y(row)) } {}
                }
                @for (from, to) in edges {
                    // The further apart, the wider the bow; with the head of an arrow at its end.
                    @let bow = end(from).max(end(to)) + 20 + 8 * from.abs_diff(to);
                    path class="edge"
                        d={ "M" (end(from)) " " (y(from)) "C" (bow) " " (y(from)) " " (bow) " " (y(to)) " "
                            (end(to)) " " (y(to)) "m6-3l-6 3l6 3" } {}
                }
                text class="self" x="245" y=(own + 4) text-anchor="end" {
                    (shortened(info.path.name(), 32))
                }
                @for (row, info) in references.iter().enumerate() {
                    a href=(info.path.hash()) tabindex="-1" {
                        text x=(COLUMN) y=(y(row) + 4) { (shortened(info.path.name(), LETTERS)) }
                    }
                }
            }
        }
    }
}

fn shortened(name: &str, letters: usize) -> String {
    // A name has no letter of more than one byte.
    if name.len() <= letters { name.into() } else { format!("{}…", &name[..letters - 1]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::hash::Sha256;
    use crate::nix::store_path::StorePath;

    fn info(number: u8, name: &str) -> PathInfo {
        let hash = StorePathHash::from_bytes([number; 20]);
        let path = StorePath::parse(&format!("{hash}-{name}")).unwrap();
        PathInfo::new(path, Sha256([0; 32]), 8)
    }

    #[test]
    fn each_reference_is_drawn_and_each_between_two_of_them() {
        let (one, mut two) = (info(1, "one"), info(2, &"long".repeat(20)));
        two.references = vec![one.path.clone(), two.path.clone(), info(9, "elsewhere").path];
        let drawn = draw(&info(0, "own"), &[one, two]).into_string();
        assert_eq!(drawn.matches("class=\"edge own\"").count(), 2);
        assert_eq!(drawn.matches("class=\"edge\"").count(), 1, "{drawn}");
        assert!(drawn.contains('…'), "a long name is cut");
    }

    #[test]
    fn what_is_too_much_is_not_drawn_and_nothing_is_neither() {
        let many: Vec<_> =
            (0..=u8::try_from(DRAWN).unwrap()).map(|number| info(number, "x")).collect();
        assert_eq!(draw(&info(99, "own"), &many).into_string(), "");
        assert_eq!(draw(&info(99, "own"), &[]).into_string(), "");
    }

    #[test]
    fn the_densest_graph_is_small() {
        let all: Vec<_> =
            (0..u8::try_from(DRAWN).unwrap()).map(|number| info(number, "x")).collect();
        let paths: Vec<_> = all.iter().map(|info| info.path.clone()).collect();
        let dense: Vec<_> =
            all.into_iter().map(|info| PathInfo { references: paths.clone(), ..info }).collect();
        let drawn = draw(&info(99, "own"), &dense).into_string();
        assert!(drawn.len() < 60_000, "{} bytes", drawn.len());
    }
}
