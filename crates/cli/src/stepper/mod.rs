//! `fastgup replay` on a terminal: steps through a run with the arrow keys.

mod lanes;
mod state;
mod view;

use lab::Replay;
use races::SavedRun;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::failure::Failure;

/// A run, and where in it the reader is.
pub(crate) struct Stepper<'r> {
    saved: &'r SavedRun,
    replay: &'r Replay,
    /// Said once, above the run: whether it is what it was.
    said: &'r str,
    /// So many steps were taken.
    at: usize,
    /// The first line of the state that is shown.
    scrolled: usize,
}

/// Whether the reader wants to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    GoOn,
    Quit,
}

impl<'r> Stepper<'r> {
    /// At the start of a run.
    pub(crate) fn new(saved: &'r SavedRun, replay: &'r Replay, said: &'r str) -> Self {
        Self { saved, replay, said, at: 0, scrolled: 0 }
    }

    /// Takes over the terminal until the reader has seen enough.
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        let mut terminal = ratatui::try_init()?;
        let result = loop {
            if let Err(error) = terminal.draw(|frame| view::draw(&mut self, frame)) {
                break Err(error);
            }
            match event::read() {
                Ok(Event::Key(key)) if self.press(key) == Wish::Quit => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        ratatui::try_restore()?;
        Ok(result?)
    }

    /// A key was pressed.
    pub(crate) fn press(&mut self, key: KeyEvent) -> Wish {
        const FAR: usize = 10;
        if key.kind == KeyEventKind::Release {
            return Wish::GoOn;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Wish::Quit } else { Wish::GoOn };
        }
        match key.code {
            KeyCode::Right | KeyCode::Char('l' | ' ') => self.go(self.at.saturating_add(1)),
            KeyCode::Left | KeyCode::Char('h') => self.go(self.at.saturating_sub(1)),
            KeyCode::PageDown => self.go(self.at.saturating_add(FAR)),
            KeyCode::PageUp => self.go(self.at.saturating_sub(FAR)),
            KeyCode::Home | KeyCode::Char('g') => self.go(0),
            KeyCode::End | KeyCode::Char('G') => self.go(usize::MAX),
            // How far there is something to scroll to is known when it is drawn.
            KeyCode::Down | KeyCode::Char('j') => self.scrolled = self.scrolled.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::Char('q') | KeyCode::Esc => return Wish::Quit,
            _ => {}
        }
        Wish::GoOn
    }

    fn go(&mut self, step: usize) {
        self.at = step.min(self.steps());
    }

    fn steps(&self) -> usize {
        self.replay.trace.steps.len()
    }

    fn is_at_end(&self) -> bool {
        self.at == self.steps()
    }
}

#[cfg(test)]
mod tests {
    use races::{MemoryOrder, Options, Race, Source};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    const SB: &str = "X86_64 SB\n{}\nP0|P1;\nmovl $1,(x)|movl $1,(y);\nmovl (y),%eax|movl (x),%eax;\n\
                      ~exists (0:rax=0 /\\ 1:rax=0)\n";

    fn run_of(race: &Race, variant: Option<&str>) -> (SavedRun, Replay) {
        let options = Options {
            memory: Some(MemoryOrder::Tso),
            variants: variant.map(str::to_owned).into_iter().collect(),
            ..Options::default()
        };
        let mut reports = Vec::new();
        races::decide(std::slice::from_ref(race), &options, |report| reports.push(report));
        SavedRun::of(race, &reports[0]).expect("it goes the same way again").expect("it shows a run")
    }

    fn store_buffering() -> (SavedRun, Replay) {
        run_of(&Race::new(Source::new("sb.litmus", SB)).expect("it is right"), None)
    }

    fn press(stepper: &mut Stepper<'_>, keys: &[KeyCode]) {
        for key in keys {
            assert_eq!(stepper.press(KeyEvent::new(*key, KeyModifiers::NONE)), Wish::GoOn);
        }
    }

    fn shown(stepper: &mut Stepper<'_>, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a buffer");
        terminal.draw(|frame| view::draw(stepper, frame)).expect("a buffer takes everything");
        let buffer = terminal.backend().buffer();
        let line = |row: u16| (0..width).map(|column| buffer[(column, row)].symbol()).collect::<String>();
        (0..height).map(|row| line(row).trim_end().to_owned() + "\n").collect()
    }

    /// Lines of the source move without a difference to anybody.
    fn without_lines(text: &str) -> String {
        let mut parts = text.split(".rs:");
        let mut whole = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let digits = part.chars().take_while(char::is_ascii_digit).count();
            whole.extend([".rs:", &"N".repeat(digits), &part[digits..]]);
        }
        whole
    }

    #[test]
    fn the_lanes_and_the_state_stand_side_by_side() {
        let (saved, replay) = store_buffering();
        let mut stepper = Stepper::new(&saved, &replay, "Replayed.");
        press(&mut stepper, &[KeyCode::Right, KeyCode::Right]);
        insta::assert_snapshot!(without_lines(&shown(&mut stepper, 110, 26)), @"
        sb (tso)  step 2 of 6
        CPU0 load y.low = 0
        Run────────────────────────────────────────────────┌State─────────────────────────────────────────────────────
            CPU0                    CPU1                   │This step changes
          1 movl $1,(x)                                    │  CPU0 next: load y.low -> done
            store x.low := 1, into                         │
            the store buffer                               │CPU0
            (interpreter.rs:NNN)                           │  next: done
            movl (y),%eax                                  │  interrupts: on
          2 load y.low = 0                                 │
            (interpreter.rs:NNN)                           │CPU1
          3                         movl $1,(y)            │  next: store y.low
                                    store y.low := 1, into │  interrupts: on
                                    the store buffer       │
                                    (interpreter.rs:NNN)   │CPU0 store buffer
                                    movl (x),%eax          │  oldest: x.low := 1
          4                         load x.low = 0         │
                                    (interpreter.rs:NNN)   │words
          5                         (buffer) store reaches │  x: 0
                                    memory y.low: 0 -> 1   │  y: 0
          6 (buffer) store reaches                         │
            memory x.low: 0 -> 1                           │
            ✗ user                                         │
                                                           │
                                                           │
        q quit   left/right step   PgUp/PgDn ten   Home/End   up/down scroll the state
        ");
    }

    #[test]
    fn at_the_end_the_broken_rule_is_marked() {
        let (saved, replay) = store_buffering();
        let mut stepper = Stepper::new(&saved, &replay, "Replayed.");
        assert!(!shown(&mut stepper, 110, 26).contains("✗ user: a final state satisfies"));
        press(&mut stepper, &[KeyCode::End]);
        let text = shown(&mut stepper, 110, 26);
        assert!(text.contains("step 6 of 6") && text.contains("✗ user: a final state satisfies"), "{text}");
    }

    #[test]
    fn a_narrow_terminal_has_them_one_above_the_other() {
        let (saved, replay) = store_buffering();
        let mut stepper = Stepper::new(&saved, &replay, "Replayed.");
        press(&mut stepper, &[KeyCode::Right]);
        insta::assert_snapshot!(without_lines(&shown(&mut stepper, 60, 24)), @"
        sb (tso)  step 1 of 6
        CPU0 store x.low := 1, into the store buffer
        Run─────────────────────────────────────────────────────────
            CPU0                         CPU1
          1 movl $1,(x)
            store x.low := 1, into the
            store buffer
            (interpreter.rs:NNN)
            movl (y),%eax
          2 load y.low = 0
            (interpreter.rs:NNN)
        State───────────────────────────────────────────────────────
        This step changes
          CPU0 next: store x.low -> load y.low
          CPU0 store buffer oldest: (new) x.low := 1

        CPU0
          next: load y.low
          interrupts: on

        CPU1
          next: store y.low
          interrupts: on
        q quit   left/right step   PgUp/PgDn ten   Home/End   up/dow
        ");
    }

    #[test]
    fn keys_step_forwards_and_backwards_and_stop_at_the_ends() {
        let (saved, replay) = store_buffering();
        let mut stepper = Stepper::new(&saved, &replay, "");
        for (keys, expected) in [
            (&[KeyCode::Left][..], 0),
            (&[KeyCode::Right, KeyCode::Char('l'), KeyCode::Char(' ')], 3),
            (&[KeyCode::Left, KeyCode::Char('h')], 1),
            (&[KeyCode::PageDown], 6),
            (&[KeyCode::Right], 6),
            (&[KeyCode::Home], 0),
            (&[KeyCode::Char('G'), KeyCode::PageUp], 0),
        ] {
            press(&mut stepper, keys);
            assert_eq!(stepper.at, expected, "{keys:?}");
        }
        assert_eq!(stepper.press(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE)), Wish::Quit);
        assert_eq!(stepper.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Wish::Quit);
    }

    /// Everything of the state can be scrolled to, and not further.
    #[test]
    fn the_state_scrolls_to_its_end() {
        let race = Race::find("pae-zap-refault").expect("it is in the catalogue");
        let (saved, replay) = run_of(&race, Some("low-high-low"));
        let mut stepper = Stepper::new(&saved, &replay, "");
        press(&mut stepper, &[KeyCode::Right; 6]);
        let top = shown(&mut stepper, 100, 30);
        assert!(
            top.contains("table 0x105") && top.contains("0 [none]") && !top.contains("frame 0x123456: allocated"),
            "{top}"
        );
        press(&mut stepper, &[KeyCode::Down; 500]);
        let bottom = shown(&mut stepper, 100, 30);
        assert!(bottom.contains("frame 0x123456: allocated"), "{bottom}");
        let end = stepper.scrolled;
        press(&mut stepper, &[KeyCode::Down]);
        shown(&mut stepper, 100, 30);
        assert_eq!(stepper.scrolled, end);
    }

    #[test]
    fn no_size_is_too_small_or_too_large() {
        let race = Race::find("pae-zap-refault").expect("it is in the catalogue");
        let (saved, replay) = run_of(&race, Some("low-high-low"));
        let mut stepper = Stepper::new(&saved, &replay, "Replayed.");
        for (width, height) in [(1, 1), (3, 2), (10, 5), (20, 8), (40, 100), (99, 3), (300, 90)] {
            for at in [0, 5, 22] {
                stepper.at = at;
                shown(&mut stepper, width, height);
            }
        }
    }
}
