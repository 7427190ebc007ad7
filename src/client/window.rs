//! How many uploads run at once: found out, not configured.
//!
//! More are started while that moves more bytes, and half as many when the server or the line says that
//! it is too much (the rule of TCP: add slowly, cut at once). Pure: the caller has the clock.

use std::time::Duration;

/// Uploads at the beginning.
const FIRST: usize = 2;
/// Rates are compared over at least this long.
const EPOCH: Duration = Duration::from_millis(200);
/// What a small upload costs besides its bytes, as bytes: rates of large and of small paths must be
/// comparable, and the largest come first.
const OVERHEAD: u64 = 256 << 10;
/// Failures of uploads that ran side by side are one event.
const CUT_PAUSE: Duration = Duration::from_secs(1);

/// The number of uploads at once.
#[derive(Clone, Debug)]
pub struct Window {
    limit: usize,
    most: usize,
    /// Doubling, until the first sign that it is enough.
    opening: bool,
    last_rate: f64,
    moved: u64,
    finished: usize,
    since: Duration,
    last_cut: Option<Duration>,
}

impl Window {
    /// At most `most` at once, and always at least one.
    pub fn new(most: usize) -> Self {
        let most = most.max(1);
        Self {
            limit: FIRST.min(most),
            most,
            opening: true,
            last_rate: 0.0,
            moved: 0,
            finished: 0,
            since: Duration::ZERO,
            last_cut: None,
        }
    }

    /// How many may run now.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// One of `bytes` was finished at `now`, which is any clock that does not go back.
    pub fn finished(&mut self, bytes: u64, now: Duration) {
        self.moved = self.moved.saturating_add(bytes).saturating_add(OVERHEAD);
        self.finished += 1;
        let elapsed = now.saturating_sub(self.since);
        if elapsed < EPOCH || self.finished < self.limit {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate is compared, not counted")]
        let rate = self.moved as f64 / elapsed.as_secs_f64();
        if rate > self.last_rate * 1.05 {
            let more = if self.opening { self.limit * 2 } else { self.limit + 1 };
            self.limit = more.min(self.most);
        } else {
            self.opening = false;
            if rate < self.last_rate * 0.8 {
                self.limit = (self.limit - 1).max(1);
            }
        }
        self.begin(rate, now);
    }

    /// The server or the line could not take it.
    pub fn overloaded(&mut self, now: Duration) {
        if self.last_cut.is_some_and(|last| now.saturating_sub(last) < CUT_PAUSE) {
            return;
        }
        self.limit = (self.limit / 2).max(1);
        self.opening = false;
        self.last_cut = Some(now);
        // What it reached under overload is nothing to measure by.
        self.begin(0.0, now);
    }

    const fn begin(&mut self, rate: f64, now: Duration) {
        self.last_rate = rate;
        self.moved = 0;
        self.finished = 0;
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Event {
        Finished(u64, u64),
        Overloaded(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (any::<u64>(), 0u64..2000).prop_map(|(bytes, wait)| Event::Finished(bytes, wait)),
            1 => (0u64..2000).prop_map(Event::Overloaded),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_there_is_one_and_never_more_than_allowed(
            most in 0usize..40,
            events in prop::collection::vec(event(), 0..300),
        ) {
            let mut window = Window::new(most);
            let mut now = Duration::ZERO;
            for event in events {
                let before = window.limit();
                match event {
                    Event::Finished(bytes, wait) => {
                        now += Duration::from_millis(wait);
                        window.finished(bytes, now);
                        prop_assert!(window.limit() <= before * 2 && window.limit() + 1 >= before);
                    }
                    Event::Overloaded(wait) => {
                        now += Duration::from_millis(wait);
                        window.overloaded(now);
                        prop_assert!(window.limit() <= before);
                    }
                }
                prop_assert!((1..=most.max(1)).contains(&window.limit()));
            }
        }
    }

    /// Runs `window` against a line whose rate is that of at most `width` uploads.
    fn run(window: &mut Window, width: usize, from: Duration, seconds: u64) -> Duration {
        let mut now = from;
        while now < from + Duration::from_secs(seconds) {
            let useful = window.limit().min(width);
            now += Duration::from_secs_f64(0.1 / useful as f64);
            window.finished(1 << 20, now);
        }
        now
    }

    #[test]
    fn it_opens_while_more_at_once_move_more_and_then_stays() {
        let mut window = Window::new(64);
        run(&mut window, 8, Duration::ZERO, 20);
        assert!((8..=16).contains(&window.limit()), "{}", window.limit());
    }

    #[test]
    fn one_burst_of_refusals_halves_it_once_and_it_opens_again_slowly() {
        let mut window = Window::new(16);
        let now = run(&mut window, 16, Duration::ZERO, 20);
        let before = window.limit();
        for _ in 0..before {
            window.overloaded(now);
        }
        assert_eq!(window.limit(), before / 2);
        window.overloaded(now + CUT_PAUSE);
        assert_eq!(window.limit(), before / 4);
        let cut = window.limit();
        run(&mut window, 16, now + CUT_PAUSE, 20);
        assert!(window.limit() > cut, "{} after {cut}", window.limit());
    }
}
