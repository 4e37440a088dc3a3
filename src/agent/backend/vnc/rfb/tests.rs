//! Tests of the filters: every message whole, and in any chunking.

use proptest::prelude::*;

use super::*;

const ALL: Rights = Rights { pointer: true, keyboard: true, paste: true, copy: true, resize: true };
const NONE: Rights = Rights { pointer: false, keyboard: false, paste: false, copy: false, resize: false };

const FORMAT: [u8; 16] = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn key(down: u8, keysym: u32) -> Vec<u8> {
    join(&[&[4, down, 0, 0], &keysym.to_be_bytes()])
}

fn qemu_key(down: u16, keysym: u32, code: u32) -> Vec<u8> {
    join(&[&[255, 0], &down.to_be_bytes(), &keysym.to_be_bytes(), &code.to_be_bytes()])
}

fn pointer(buttons: u8) -> Vec<u8> {
    vec![5, buttons, 0, 10, 0, 20]
}

fn cut_text(kind: u8, text: &[u8]) -> Vec<u8> {
    join(&[&[kind, 0, 0, 0], &u32::try_from(text.len()).unwrap().to_be_bytes(), text])
}

fn extended(kind: u8, action: u32, data: &[u8]) -> Vec<u8> {
    let length = -i32::try_from(data.len() + 4).unwrap();
    join(&[&[kind, 0, 0, 0], &length.to_be_bytes(), &(action | 1).to_be_bytes(), data])
}

fn encodings(list: &[i32]) -> Vec<u8> {
    let count = u16::try_from(list.len()).unwrap();
    join(&[&[2, 0], &count.to_be_bytes(), &list.iter().flat_map(|e| e.to_be_bytes()).collect::<Vec<_>>()])
}

/// Every message of a client, with the rights it takes.
fn client_messages() -> Vec<(Vec<u8>, Rights)> {
    vec![
        (join(&[&[0, 0, 0, 0], &FORMAT]), NONE),
        (encodings(&[7, 1, 0, -26, -239, -308]), NONE),
        (vec![3, 1, 0, 0, 0, 0, 7, 128, 4, 56], NONE),
        (key(1, 0x61), Rights { keyboard: true, ..NONE }),
        (key(0, 0x61), Rights { keyboard: true, ..NONE }),
        (qemu_key(1, 0x62, 48), Rights { keyboard: true, ..NONE }),
        (qemu_key(0, 0x62, 48), Rights { keyboard: true, ..NONE }),
        (pointer(1), Rights { pointer: true, ..NONE }),
        (pointer(0), Rights { pointer: true, ..NONE }),
        (cut_text(6, b"hello"), Rights { paste: true, ..NONE }),
        (cut_text(6, b""), Rights { paste: true, ..NONE }),
        (extended(6, 1 << 28, b"zipped"), Rights { paste: true, ..NONE }),
        (extended(6, 1 << 28 | CLIPBOARD_CAPS, b"zipped"), Rights { paste: true, ..NONE }),
        (extended(6, CLIPBOARD_CAPS, &[0; 4]), NONE),
        (extended(6, CLIPBOARD_REQUEST, b""), NONE),
        (extended(6, CLIPBOARD_PEEK, b""), NONE),
        (extended(6, CLIPBOARD_NOTIFY, b""), Rights { paste: true, ..NONE }),
        (vec![150, 1, 0, 0, 0, 0, 7, 128, 4, 56], NONE),
        (vec![248, 0, 0, 0, 0, 0, 0, 1, 3, 9, 9, 9], NONE),
        (join(&[&[251, 0, 4, 0, 3, 0, 1, 0], &[1; 16]]), Rights { resize: true, ..NONE }),
    ]
}

fn covers(have: Rights, need: Rights) -> bool {
    (have.pointer || !need.pointer)
        && (have.keyboard || !need.keyboard)
        && (have.paste || !need.paste)
        && (have.resize || !need.resize)
}

fn client(input: &[u8], rights: Rights) -> Result<Vec<u8>, Violation> {
    let mut out = Vec::new();
    ClientFilter::default().push(input, rights, &mut out).map(|()| out)
}

#[test]
fn each_message_of_a_client_needs_its_right_and_no_other() {
    for (message, need) in client_messages() {
        assert_eq!(client(&message, need).unwrap(), message, "with what it needs");
        assert_eq!(client(&message, ALL).unwrap(), message, "with everything");
        let expected = if need == NONE { message.clone() } else { Vec::new() };
        assert_eq!(client(&message, NONE).unwrap(), expected, "with nothing");
        let others = Rights {
            pointer: !need.pointer,
            keyboard: !need.keyboard,
            paste: !need.paste,
            resize: !need.resize,
            copy: true,
        };
        assert_eq!(client(&message, others).unwrap(), expected, "with all but what it needs");
    }
}

#[test]
fn what_a_client_may_never_send_ends_the_connection() {
    let cases: [(&str, Vec<u8>); 12] = [
        ("unknown message", vec![1]),
        ("unknown message", vec![7]),
        ("unknown message", vec![255, 1]),
        ("unknown message", vec![249, 0, 0, 0]),
        ("clipboard is too large", join(&[&[6, 0, 0, 0], &i32::MIN.to_be_bytes()])),
        ("clipboard is too large", join(&[&[6, 0, 0, 0], &i32::MAX.to_be_bytes()])),
        (
            "clipboard is too large",
            join(&[&[6, 0, 0, 0], &u32::try_from(MESSAGE_BYTES_MAX + 1).unwrap().to_be_bytes()]),
        ),
        ("clipboard message is too short", join(&[&[6, 0, 0, 0], &(-3_i32).to_be_bytes()])),
        ("fence is too long", vec![248, 0, 0, 0, 0, 0, 0, 0, 65]),
        ("only 32-bit true colour is offered", join(&[&[0, 0, 0, 0, 16, 16], &FORMAT[2..]])),
        ("only 32-bit true colour is offered", join(&[&[0, 0, 0, 0], &FORMAT[..10], &[3, 8, 0, 0, 0, 0]])),
        ("only 32-bit true colour is offered", join(&[&[0, 0, 0, 0], &FORMAT[..3], &[0], &FORMAT[4..]])),
    ];
    for (expected, input) in cases {
        assert_eq!(client(&input, ALL).unwrap_err(), Violation(expected), "{input:?}");
    }
}

#[test]
fn every_type_that_is_not_known_ends_the_connection() {
    let known = [0, 2, 3, 4, 5, 6, 150, 248, 250, 251, 255];
    for kind in (0..=u8::MAX).filter(|kind| !known.contains(kind)) {
        assert_eq!(client(&join(&[&[kind], &[0; 64]]), ALL).unwrap_err(), Violation("unknown message"), "{kind}");
    }
    for kind in 1..=u8::MAX {
        assert_eq!(client(&join(&[&[255, kind], &[0; 64]]), ALL).unwrap_err(), Violation("unknown message"), "{kind}");
    }
    for kind in (0..=u8::MAX).filter(|kind| ![0, 2, 3, 150, 248].contains(kind)) {
        let error = server(&join(&[&[kind], &[0; 64]]), ALL).unwrap_err();
        assert_eq!(error, Violation("unknown message of the server"), "{kind}");
    }
}

#[test]
fn xvp_is_nobodys_right() {
    assert_eq!(client(&[250, 0, 1, 2], ALL).unwrap(), [0_u8; 0]);
}

#[test]
fn encodings_that_would_change_the_protocol_are_taken_out() {
    let asked =
        [7, -316, 50, 5, 16, 2, 6, -260, 21, -309, -224, EXTENDED_CLIPBOARD, -32, -23, -33, -22, -256, -247, -257];
    let kept = [7, -224, EXTENDED_CLIPBOARD, -32, -23, -256, -247];
    assert_eq!(client(&encodings(&asked), ALL).unwrap(), encodings(&kept));
    assert_eq!(client(&encodings(&[]), ALL).unwrap(), encodings(&[]));
}

#[test]
fn keys_and_buttons_that_are_down_are_released_at_withdrawal() {
    let mut filter = ClientFilter::default();
    let mut out = Vec::new();
    let input = join(&[&key(1, 1), &key(1, 2), &key(0, 1), &qemu_key(1, 3, 4), &pointer(5)]);
    filter.push(&input, ALL, &mut out).unwrap();
    out.clear();
    filter.release(ALL, &mut out);
    assert_eq!(out, [0_u8; 0]);
    filter.release(Rights { keyboard: true, ..NONE }, &mut out);
    assert_eq!(out, pointer(0));
    out.clear();
    filter.release(NONE, &mut out);
    assert_eq!(out, join(&[&key(0, 2), &qemu_key(0, 3, 4)]));
    out.clear();
    filter.release(NONE, &mut out);
    assert_eq!(out, [0_u8; 0]);
}

#[test]
fn rights_follow_features() {
    let of = |words: &str, owner| {
        let features =
            words.split_whitespace().fold(Features::NONE, |all, word| all.with(Features::from_word(word).unwrap()));
        Rights::new(features, owner)
    };
    assert_eq!(of("display", false), NONE);
    assert_eq!(of("display", true), Rights { resize: true, ..NONE });
    assert_eq!(of("display mouse", false), Rights { pointer: true, ..NONE });
    assert_eq!(of("display touch", false), Rights { pointer: true, ..NONE });
    assert_eq!(of("mouse keyboard", false), Rights { pointer: true, keyboard: true, resize: true, ..NONE });
    assert_eq!(of("clipboard-copy", false), Rights { copy: true, ..NONE });
    assert_eq!(of("clipboard-paste", false), Rights { paste: true, ..NONE });
    assert_eq!(of("builtin", false), ALL);
}

fn rectangle(width: u16, height: u16, encoding: i32, body: &[u8]) -> Vec<u8> {
    join(&[&[0, 0, 0, 0], &width.to_be_bytes(), &height.to_be_bytes(), &encoding.to_be_bytes(), body])
}

fn update(count: u16, rectangles: &[Vec<u8>]) -> Vec<u8> {
    join(&[&[0, 0], &count.to_be_bytes(), &rectangles.concat()])
}

/// Every message of a server; true: only with the right to copy.
fn server_messages() -> Vec<(Vec<u8>, bool)> {
    let rectangles = [
        rectangle(3, 2, RAW, &[7; 24]),
        rectangle(3, 2, COPY_RECT, &[7; 4]),
        rectangle(30, 20, TIGHT, &[0x80, 1, 2, 3]),
        rectangle(30, 20, TIGHT, &join(&[&[0x90, 0x05], &[9; 5]])),
        rectangle(30, 20, TIGHT, &join(&[&[0x90, 0x85, 0x01], &[9; 0x85]])),
        rectangle(30, 20, TIGHT, &join(&[&[0x90, 0x80, 0x80, 0x01], &[9; 1 << 14]])),
        rectangle(30, 20, TIGHT, &join(&[&[0x0f, 0x03], &[9; 3]])),
        rectangle(1, 3, TIGHT, &join(&[&[0x00], &[9; 9]])),
        rectangle(1, 4, TIGHT, &join(&[&[0x00, 0x02], &[9; 2]])),
        rectangle(30, 20, TIGHT, &join(&[&[0x40, 0x00, 0x03], &[9; 3]])),
        rectangle(30, 20, TIGHT, &join(&[&[0x40, 0x02, 0x03], &[9; 3]])),
        rectangle(9, 2, TIGHT, &join(&[&[0x40, 0x01, 0x01], &[8; 6], &[9; 4]])),
        rectangle(9, 2, TIGHT, &join(&[&[0x40, 0x01, 0x02], &[8; 9], &[0x03], &[9; 3]])),
        rectangle(0, 0, DESKTOP_SIZE, &[]),
        rectangle(9, 2, CURSOR, &join(&[&[1; 72], &[2; 4]])),
        rectangle(0, 0, CURSOR, &[]),
        rectangle(0, 0, QEMU_KEY, &[]),
        rectangle(0, 0, LED_STATE, &[1]),
        rectangle(0, 0, DESKTOP_NAME, &[0, 0, 0, 2, b'h', b'i']),
        rectangle(0, 0, EXTENDED_DESKTOP_SIZE, &join(&[&[2, 0, 0, 0], &[5; 32]])),
        rectangle(2, 2, VMWARE_CURSOR, &join(&[&[0, 0], &[5; 32]])),
        rectangle(2, 2, VMWARE_CURSOR, &join(&[&[1, 0], &[5; 16]])),
    ];
    let mut messages: Vec<_> = rectangles.iter().map(|one| (update(1, std::slice::from_ref(one)), false)).collect();
    messages.push((update(u16::try_from(rectangles.len()).unwrap(), &rectangles), false));
    let early_end = [rectangles[2].clone(), rectangle(0, 0, LAST_RECT, &[])];
    messages.extend([
        (update(65535, &early_end), false),
        (update(0, &[]), false),
        (vec![2], false),
        (vec![150], false),
        (vec![248, 0, 0, 0, 0x80, 0, 0, 0, 2, 1, 1], false),
        (cut_text(3, b"secret"), true),
        (cut_text(3, b""), true),
        (extended(3, CLIPBOARD_NOTIFY, b""), true),
        (extended(3, 1 << 28, b"secret"), true),
        (extended(3, 1 << 28 | CLIPBOARD_CAPS, b"secret"), true),
        (extended(3, CLIPBOARD_CAPS, &[0; 8]), false),
        (extended(3, CLIPBOARD_REQUEST, b""), false),
        (extended(3, CLIPBOARD_PEEK, b""), false),
    ]);
    messages
}

fn server(input: &[u8], rights: Rights) -> Result<Vec<u8>, Violation> {
    let mut out = Vec::new();
    ServerFilter::default().push(input, rights, &mut out).map(|()| out)
}

#[test]
fn only_the_clipboard_of_the_server_needs_a_right() {
    for (message, secret) in server_messages() {
        // A message behind it shows that the end was found.
        let input = join(&[&message, &[2]]);
        assert_eq!(server(&input, ALL).unwrap(), input);
        let expected = if secret { vec![2] } else { input };
        assert_eq!(server(&expected, Rights { copy: false, ..ALL }).unwrap(), expected);
        assert_eq!(server(&join(&[&message, &[2]]), NONE).unwrap(), expected);
    }
}

#[test]
fn what_cannot_be_framed_ends_the_connection() {
    let cases: [(&str, Vec<u8>); 8] = [
        ("unknown message of the server", vec![1]),
        ("unknown message of the server", vec![250, 0, 0, 0]),
        ("unknown encoding of the server", update(1, &[rectangle(1, 1, 16, &[])])),
        ("unknown Tight compression of the server", update(1, &[rectangle(1, 1, TIGHT, &[0xa0])])),
        ("unknown Tight filter of the server", update(1, &[rectangle(1, 1, TIGHT, &[0x40, 3])])),
        ("unknown cursor of the server", update(1, &[rectangle(1, 1, VMWARE_CURSOR, &[2, 0])])),
        ("clipboard is too large", join(&[&[3, 0, 0, 0], &i32::MIN.to_be_bytes()])),
        ("clipboard message is too short", join(&[&[3, 0, 0, 0], &(-1_i32).to_be_bytes()])),
    ];
    for (expected, input) in cases {
        assert_eq!(server(&input, ALL).unwrap_err(), Violation(expected), "{input:?}");
    }
}

fn rights() -> impl Strategy<Value = Rights> {
    proptest::array::uniform5(any::<bool>()).prop_map(|[pointer, keyboard, paste, copy, resize]| Rights {
        pointer,
        keyboard,
        paste,
        copy,
        resize,
    })
}

/// Cuts `bytes` at `cuts` and feeds the pieces.
fn in_pieces(bytes: &[u8], cuts: &[prop::sample::Index], mut feed: impl FnMut(&[u8])) {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).for_each(|pair| feed(&bytes[pair[0]..pair[1]]));
}

proptest! {
    #[test]
    fn chunking_of_a_client_changes_nothing(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        rights in rights(),
    ) {
        let all = client_messages();
        let chosen: Vec<_> = picks.iter().map(|pick| pick.get(&all)).collect();
        let input = chosen.iter().flat_map(|(message, _)| message.clone()).collect::<Vec<_>>();
        let expected: Vec<_> = chosen.iter().filter(|(_, need)| covers(rights, *need)).flat_map(|(m, _)| m.clone()).collect();
        let (mut filter, mut out) = (ClientFilter::default(), Vec::new());
        in_pieces(&input, &cuts, |piece| filter.push(piece, rights, &mut out).unwrap());
        prop_assert_eq!(out, expected);
    }

    #[test]
    fn chunking_of_a_server_changes_nothing(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        rights in rights(),
    ) {
        let all = server_messages();
        let chosen: Vec<_> = picks.iter().map(|pick| pick.get(&all)).collect();
        let input = chosen.iter().flat_map(|(message, _)| message.clone()).collect::<Vec<_>>();
        let expected: Vec<_> = chosen.iter().filter(|(_, secret)| rights.copy || !secret).flat_map(|(m, _)| m.clone()).collect();
        let (mut filter, mut out) = (ServerFilter::default(), Vec::new());
        in_pieces(&input, &cuts, |piece| filter.push(piece, rights, &mut out).unwrap());
        prop_assert_eq!(out, expected);
    }

    #[test]
    fn no_bytes_panic_or_are_let_through_without_rights(bytes in prop::collection::vec(any::<u8>(), 0..2000), first in 0..8_usize) {
        let kinds = [4, 5, 6, 250, 251, 255, 0, 3];
        let input = join(&[&[kinds[first]], &bytes]);
        let (mut filter, mut out) = (ClientFilter::default(), Vec::new());
        let outcome = filter.push(&input, NONE, &mut out);
        if let Ok(Some(length)) = client::client_message_length(&input) && first < 2 && input.len() >= length {
            prop_assert!(!out.starts_with(&input[..length]) || outcome.is_err());
        }
        let _ = client(&bytes, ALL);
        let _ = server(&bytes, NONE);
        let _ = server(&join(&[&[0, 0, 0, 9], &bytes]), ALL);
    }
}
