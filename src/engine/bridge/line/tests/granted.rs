//! What the core grants, with somebody at the other end or nobody.

use super::*;

#[test]
fn a_session_is_made_without_anybody_at_the_other_end() {
    let plan = Arc::new(plan(vec![both("a/#"), both("b")]));
    let mut wire = Wire(Line::new(plan, Purpose::Prepare(vec!["old".into()])));
    wire.0.from_remote(&[]);
    assert_eq!(wire.up()[0].0, 0x10);
    wire.core(&connack(&Connack::default(), Version::V5));
    let up = wire.up();
    assert_eq!(up[0].0, 0xA2);
    assert_eq!(up[0].1, [0xFF, 0xFE, 0, 0, 3, b'o', b'l', b'd']);
    let Packet::Subscribe(subscribe) = Packet::decode(
        Frame {
            first_byte: up[1].0,
            body: &up[1].1,
        },
        Version::V5,
    )
    .unwrap() else {
        panic!("{up:?}")
    };
    assert_eq!(subscribe.packet_id, u16::MAX);
    wire.core(&[0x90, 5, 0xFF, 0xFF, 0, 2, 0x87]);
    let up = wire.up();
    assert_eq!(up, [(0xE0, vec![])]);
    let news = wire.0.take_news();
    assert_eq!(news.len(), 2);
    assert!(
        matches!(&news[0], News::NotGranted(all) if all[0].filter == "b" && all[0].is_by_rules)
    );
    assert_eq!(news[1], News::Prepared);
    assert!(wire.0.is_over() && wire.down().is_empty());
}

#[test]
fn what_the_core_does_not_grant_is_asked_for_again_by_hand() {
    let out = TopicRule {
        direction: Direction::Out,
        ..both("b")
    };
    let mut wire = opened(plan(vec![both("a/#"), out]), Protocol::V5, &USUAL);
    wire.0.ask_again();
    assert!(wire.up().is_empty(), "all is granted");
    wire.0.awaited.core = Some(vec!["a/#".into(), "b".into()]);
    wire.core(&[0x90, 5, 0xFF, 0xFF, 0, 2, 0x87]);
    wire.0.take_news();
    wire.0.ask_again();
    let up = wire.up();
    let subscribe = Subscribe::decode(&up[0].1, Version::V5).unwrap();
    let filters: Vec<_> = subscribe.requests.iter().map(|it| it.filter).collect();
    assert_eq!((up.len(), filters), (1, vec!["b"]));
    wire.0.ask_again();
    assert!(wire.up().is_empty(), "one question at a time");
    wire.core(&[0x90, 4, 0xFF, 0xFF, 0, 2]);
    assert_eq!(wire.0.take_news(), [News::NotGranted(Vec::new())]);
    wire.0.ask_again();
    assert!(wire.up().is_empty());
}
