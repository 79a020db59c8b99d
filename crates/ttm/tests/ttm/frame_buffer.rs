//! The example driver: what it claims is true.

#[path = "../../examples/frame_buffer/show.rs"]
mod show;

#[test]
fn every_claim_of_the_example_is_true() {
    let report = show::show(12);
    assert!(report.lines.len() >= 6, "it says what happened: {:?}", report.lines);
    assert_eq!(report.broken, [""; 0], "{:#?}", report.lines);
}
