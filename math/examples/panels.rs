//! How often a panel has a lying majority when liars have a third of the weight.
//!
//! ```text
//! cargo run -p starling-math --example panels [hosts [panel ...]]
//! ```
//!
//! Hosts have equal weight here, `floor(hosts / 3)` of them lie together, and neither executor nor accuser sits on the
//! panel: an honest executor, accused by one of the liars. Then the number of liars on a panel is hypergeometric. Printed is
//! the probability that they are more than half, and that they are half or more, so that honest members alone do not decide.
//! Exact but for the rounding of `f64`.

/// Sizes of the runtime's two panels.
const PANELS: [u32; 2] = [201, 301];

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u32>().expect("a number"));
    let hosts: Vec<u32> =
        arguments.next().map_or_else(|| vec![4, 30, 200, 300, 500, 1_000], |hosts| vec![hosts]);
    let mut panels: Vec<u32> = arguments.collect();
    if panels.is_empty() {
        panels = PANELS.to_vec();
    }
    println!(
        "{:>6} {:>6} {:>6} {:>16} {:>22}",
        "hosts", "liars", "panel", "liars decide", "honest do not decide"
    );
    for hosts in hosts {
        for &size in &panels {
            let liars = hosts / 3;
            let on_panel = Panel::new(hosts.saturating_sub(2), liars.saturating_sub(1), size);
            let decide = on_panel.at_least(on_panel.size / 2 + 1);
            let block = on_panel.at_least(on_panel.size.div_ceil(2));
            println!("{hosts:>6} {liars:>6} {:>6} {decide:>16.2e} {block:>22.2e}", on_panel.size);
        }
    }
}

/// `size` of `available` hosts, `liars` of which lie.
struct Panel {
    available: u32,
    liars: u32,
    size: u32,
}

impl Panel {
    fn new(available: u32, liars: u32, size: u32) -> Self {
        Self { available, liars: liars.min(available), size: size.min(available) }
    }

    /// Probability that at least `count` liars sit on it.
    fn at_least(&self, count: u32) -> f64 {
        (count..=self.size.min(self.liars)).fold(0.0, |sum, liars| sum + self.exactly(liars))
    }

    /// `C(liars, count) C(available - liars, size - count) / C(available, size)`.
    fn exactly(&self, count: u32) -> f64 {
        let honest = self.available - self.liars;
        if self.size - count > honest {
            return 0.0;
        }
        let ways = ln_choose(self.liars, count) + ln_choose(honest, self.size - count);
        (ways - ln_choose(self.available, self.size)).exp()
    }
}

/// Logarithm of a binomial coefficient: the coefficients themselves are beyond the range of an `f64`.
fn ln_choose(n: u32, k: u32) -> f64 {
    (1..=k).map(|i| (f64::from(n - k + i) / f64::from(i)).ln()).sum()
}
