//! The example driver: what it claims is true.

#[path = "../examples/frame_buffer.rs"]
#[allow(dead_code, reason = "its main function")]
mod frame_buffer;

#[test]
fn every_claim_of_the_example_is_true() {
    let report = frame_buffer::show(12);
    assert!(report.lines.len() >= 6, "it says what happened: {:?}", report.lines);
    assert_eq!(report.broken, [""; 0], "{:#?}", report.lines);
}
