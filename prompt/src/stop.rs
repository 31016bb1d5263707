//! Stop strings over the borders of tokens.

/// Finds stop strings in text that arrives in pieces. Text that may be the beginning of a stop string is held back, so
/// nothing of one is ever shown.
#[derive(Clone, Debug, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopMatcher {
    /// Empty strings are ignored.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        Self {
            stops: stops.into_iter().filter(|s| !s.is_empty()).collect(),
            held: String::new(),
            stopped: false,
        }
    }

    /// The text that is safe to show after this piece. After a stop string was found nothing more comes.
    pub fn push(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|s| self.held.find(s.as_str())).min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let keep = self.stops.iter().map(|s| overlap(&self.held, s)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether a stop string was found.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// What is still held back, when the generation ended for another reason.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest suffix of `text` that is a proper prefix of `stop`.
pub(crate) fn overlap(text: &str, stop: &str) -> usize {
    stop.char_indices()
        .map(|(i, _)| i)
        .filter(|i| text.ends_with(stop.get(..*i).unwrap_or_default()))
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut matcher = StopMatcher::new(stops.iter().map(|s| s.to_string()));
        let mut out: Vec<_> = pieces.iter().map(|p| matcher.push(p)).collect();
        out.push(matcher.finish());
        (out, matcher.is_stopped())
    }

    #[test]
    fn stops_over_borders() {
        let (out, stopped) = run(&["STOP"], &["ab S", "TO", "P cd", "ef"]);
        assert_eq!((out.concat().as_str(), stopped), ("ab ", true));
        let (out, stopped) = run(&["STOP"], &["ab S", "TO", " cd"]);
        assert_eq!(
            (out, stopped),
            (vec!["ab ".into(), String::new(), "STO cd".into(), String::new()], false)
        );
    }

    #[test]
    fn the_earliest_stop_wins_and_beginnings_are_shown_at_the_end() {
        assert_eq!(run(&["b", "a"], &["xaby"]).0.concat(), "x");
        assert_eq!(run(&["aab"], &["aaab"]).0.concat(), "a");
        assert_eq!(run(&["é!"], &["caf", "é"]), (vec!["caf".into(), String::new(), "é".into()], false));
        assert_eq!(run(&[""], &["x"]), (vec!["x".into(), String::new()], false));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            pieces in proptest::collection::vec("[abé]{0,4}", 0..8),
            stops in proptest::collection::vec("[abé]{1,4}", 0..4),
        ) {
            let whole = pieces.concat();
            let expected = stops.iter().filter_map(|s| whole.find(s.as_str())).min();
            let stops: Vec<_> = stops.iter().map(String::as_str).collect();
            let pieces: Vec<_> = pieces.iter().map(String::as_str).collect();
            let (out, stopped) = run(&stops, &pieces);
            prop_assert_eq!(stopped, expected.is_some());
            // Pieces may end inside a later, shorter stop string's match, so the first complete match ends the text.
            match expected {
                None => prop_assert_eq!(out.concat(), whole),
                Some(_) => {
                    let text = out.concat();
                    prop_assert!(whole.starts_with(&text));
                    prop_assert!(!stops.iter().any(|s| text.contains(s)));
                    prop_assert!(stops.iter().any(|s| whole[text.len()..].starts_with(s)));
                }
            }
        }
    }
}
