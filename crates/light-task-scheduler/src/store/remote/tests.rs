use super::wire::*;
use crate::task::Payload;

fn back<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> (String, T) {
    let text = serde_json::to_string(value).unwrap();
    let value = serde_json::from_str(&text).unwrap();
    (text, value)
}

#[test]
fn bytes_come_back_exactly_and_json_stays_readable() {
    let cases: [(&[u8], &str); 6] = [
        (b"null", r#"{"json":null}"#),
        (br#"{"a": [1,  2.50]}"#, r#"{"json":{"a": [1,  2.50]}}"#),
        (b" 1", r#"{"base64":"IDE="}"#),
        (b"", r#"{"base64":""}"#),
        (b"\xff\0", r#"{"base64":"/wA="}"#),
        (b"1 2", r#"{"base64":"MSAy"}"#),
    ];
    for (bytes, expected) in cases {
        let bytes = Bytes(Payload::from_bytes(bytes));
        let (text, read) = back(&bytes);
        assert_eq!((text.as_str(), &read), (expected, &bytes));
        // Nothing said and nothing there are two things.
        assert_eq!(back(&Event::Outcome(Some(bytes.clone()))).1, Event::Outcome(Some(bytes)));
    }
    assert_eq!(back(&Event::Outcome(None)).1, Event::Outcome(None));
}

#[test]
fn durations_come_back_to_the_nanosecond() {
    use std::time::Duration;
    for (duration, text) in [
        (Duration::ZERO, r#""PT0S""#),
        (Duration::from_millis(1_500), r#""PT1.5S""#),
        (Duration::MAX, r#""PT18446744073709551615.999999999S""#),
    ] {
        assert_eq!(back(&Span(duration)), (text.to_owned(), Span(duration)));
    }
    assert_eq!(serde_json::from_str::<Span>(r#""20s""#).unwrap(), Span(Duration::from_secs(20)));
    for bad in ["20", "s", "PT1M", "1.s5", "-1s", "1.0000000001s"] {
        assert!(serde_json::from_str::<Span>(&format!("{bad:?}")).is_err(), "{bad}");
    }
}

#[test]
fn a_request_with_an_unknown_field_is_refused_and_an_answer_is_not() {
    assert!(serde_json::from_str::<ChangesRequest>(r#"{"waite": "1s"}"#).is_err());
    assert!(serde_json::from_str::<Sweep>(r#"{"removed": 1, "garbage": [], "more": 2}"#).is_ok());
}
