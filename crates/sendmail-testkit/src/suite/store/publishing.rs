//! From `write` to `publish`, and what is thrown away on the way.

use sendmail_core::Clock;
use sendmail_core::{
    AmbiguousPolicy, DeliveryOptions, Discard, ErrorKind, MailEventKind, Message, NewMessage,
    Priority, QueueId,
};

use crate::suite::support::*;
use crate::suite::{QueueHarness, skipped};

/// Catches a store that publishes at `write`.
pub async fn written_is_invisible<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    write(&store, &mail(h, &store, &["a@example.net"])).await;
    claim_none(&store, "the message is only written").await;
    claim_none(&h.open().await, "the message is only written").await;
}

/// Catches a store that publishes at `stage`.
pub async fn staged_is_invisible<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = mail(h, &store, &["a@example.net"]);
    write(&store, &new).await;
    store.stage(&[new.id]).await.expect("a written message can be staged");
    claim_none(&store, "the message is only staged").await;
    claim_none(&h.open().await, "the message is only staged").await;
}

/// Catches a store that makes two of one when `write` is repeated.
pub async fn write_is_idempotent<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = mail(h, &store, &["a@example.net"]);
    write(&store, &new).await;
    store.write(&new).await.expect("the same write may be repeated");
    publish(&store, new.id).await;
    is_due(&store, "written twice, published once").await;
}

/// Catches a store that lets one message overwrite another.
pub async fn another_message_under_the_same_id_is_refused<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = mail(h, &store, &["a@example.net"]);
    write(&store, &new).await;
    let other = NewMessage { message: message("another"), ..new.clone() };
    let error = store.write(&other).await.expect_err("another message has this id");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    publish(&store, new.id).await;
    let claim = claim_one(&store, "the first one stays").await;
    let loaded = load(&store, &claim).await;
    assert_eq!(loaded.message.as_bytes(), new.message.as_bytes(), "the first one was overwritten");
}

/// Catches a store that takes more than it says.
pub async fn a_message_over_the_limit_is_refused<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let limit = store.capabilities().max_message_len;
    if limit > 32 << 20 {
        return skipped(
            "a_message_over_the_limit_is_refused",
            "the store takes messages of any size",
        );
    }
    let mut new = mail(h, &store, &["a@example.net"]);
    new.message = text(&"a line of a large message\r\n".repeat(limit / 27 + 1));
    let error = store.write(&new).await.expect_err("the message is larger than the store takes");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(store.undecided().await.expect("a list").is_empty(), "something was left");
}

/// Catches a store that fails when `stage` is repeated.
pub async fn stage_is_idempotent<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = mail(h, &store, &["a@example.net"]);
    write(&store, &new).await;
    for _ in 0..2 {
        store.stage(&[new.id]).await.expect("the same stage may be repeated");
    }
    assert_eq!(store.undecided().await.expect("a list").len(), 1);
    publish(&store, new.id).await;
    is_due(&store, "staged twice, published once").await;
}

/// Catches a store that loses what it published, or gives it out twice.
pub async fn published_is_claimed_once<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    assert_eq!((claim.id, claim.attempt), (new.id, 1));
    claim_none(&store, "it is claimed already").await;
}

/// As [`published_is_claimed_once`], on the way of a transaction that something else decides.
pub async fn staged_and_published_is_claimed_once<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = NewMessage { resource: elsewhere(), ..mail(h, &store, &["a@example.net"]) };
    write(&store, &new).await;
    store.stage(&[new.id]).await.expect("a written message can be staged");
    publish(&store, new.id).await;
    assert_eq!(claim_one(&store, "it is published").await.id, new.id);
    claim_none(&store, "it is claimed already").await;
    assert!(store.undecided().await.expect("a list").is_empty(), "a published one is undecided");
}

/// Catches a store that publishes a second copy, or fails, when `publish` is repeated.
pub async fn publish_is_idempotent<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    store.publish(&[new.id]).await.expect("publishing may be repeated");
    is_due(&store, "published twice, there once").await;
    store.publish(&[new.id]).await.expect("publishing may be repeated when it is claimed");
    claim_none(&store, "publishing again took it from its worker").await;
}

/// Catches a store that fails, or publishes twice, when recovery was faster.
pub async fn publish_after_somebody_else_published<H: QueueHarness>(h: &H) {
    let (store, other) = (h.open().await, h.open().await);
    let new = mail(h, &store, &["a@example.net"]);
    write(&store, &new).await;
    store.stage(&[new.id]).await.expect("a written message can be staged");
    other.publish(&[new.id]).await.expect("whoever may publish");
    store.publish(&[new.id]).await.expect("somebody else was faster, which is no error");
    is_due(&store, "two published it, it is there once").await;
    claim_none(&other, "two published it, it is there once").await;
}

/// Catches a store in which a late finisher sends a delivered message again.
pub async fn publish_again_brings_nothing_back<H: QueueHarness>(h: &H) {
    let (store, other) = (h.open().await, h.open().await);
    let new = queue(h, &store, &["a@example.net"]).await;
    deliver(&store, claim_one(&store, "it is published").await).await;
    // Whether it is told as an error does not matter; that nothing happens does.
    let _ = other.publish(&[new.id]).await;
    claim_none(&store, "it was delivered; publishing it again brought it back").await;
}

/// Catches a store in which a late `stage` hides a published message.
pub async fn stage_never_takes_back_what_is_published<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    let _ = store.stage(&[new.id]).await;
    is_due(&store, "it was published before it was staged again").await;
}

/// Catches a store that sends what was thrown away.
pub async fn discarded_is_gone<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let (written, staged) =
        (mail(h, &store, &["a@example.net"]), mail(h, &store, &["b@example.net"]));
    write(&store, &written).await;
    write(&store, &staged).await;
    store.stage(&[staged.id]).await.expect("a written message can be staged");
    let ids = [written.id, staged.id];
    for _ in 0..2 {
        store.discard(&ids, Discard::Aborted).await.expect("discarding may be repeated");
    }
    // A finisher that does not know yet; whether it is told as an error does not matter.
    let _ = store.publish(&ids).await;
    store.sweep().await.expect("a sweep");
    claim_none(&store, "it was discarded").await;
    assert!(store.undecided().await.expect("a list").is_empty(), "it was discarded");
}

/// Catches a store in which a late abort deletes committed mail.
pub async fn discard_never_touches_published<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    for why in [Discard::Aborted, Discard::Fenced] {
        let events = store.discard(&[new.id], why).await.unwrap_or_default();
        assert!(events.is_empty(), "it says that it threw away a published message");
    }
    let claim = claim_one(&store, "a published message is never discarded").await;
    let _ = store.discard(&[new.id], Discard::Fenced).await;
    deliver(&store, claim).await;
}

/// Catches a store that reports a thrown-away message never, or with every repetition.
pub async fn discard_fenced_reports_once<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = NewMessage { resource: elsewhere(), ..mail(h, &store, &["a@example.net"]) };
    write(&store, &new).await;
    store.stage(&[new.id]).await.expect("a written message can be staged");
    let events = store.discard(&[new.id], Discard::Fenced).await.expect("a discard");
    assert_eq!(events.len(), 1, "one message was thrown away");
    assert_eq!((events[0].kind, events[0].queue_id), (MailEventKind::Discarded, Some(new.id)));
    let again = store.discard(&[new.id], Discard::Fenced).await.expect("discarding again");
    assert!(again.is_empty(), "nothing was thrown away by the second call");
    let told = told(h, new.id, MailEventKind::Discarded).await;
    assert_eq!(told, events, "the event is in the history, once");
}

/// Catches a store that tells the world of every transaction that aborts.
pub async fn discard_aborted_reports_nothing<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = mail(h, &store, &["a@example.net"]);
    write(&store, &new).await;
    let events = store.discard(&[new.id], Discard::Aborted).await.expect("a discard");
    assert!(events.is_empty(), "an ordinary abort is no event");
    assert!(history_of(h, new.id).await.is_empty(), "an ordinary abort is no event");
}

/// Catches a store whose recovery cannot find what it has to decide.
pub async fn undecided_lists_written_and_staged_with_resource<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let written = mail(h, &store, &["a@example.net"]);
    let staged = NewMessage { resource: elsewhere(), ..mail(h, &store, &["b@example.net"]) };
    for new in [&written, &staged] {
        write(&store, new).await;
    }
    store.stage(&[staged.id]).await.expect("a written message can be staged");
    queue(h, &store, &["c@example.net"]).await;
    let mut listed = h.open().await.undecided().await.expect("a list");
    listed.sort_by_key(|undecided| undecided.staged);
    let seen: Vec<_> =
        listed.iter().map(|one| (one.id, one.resource.clone(), one.staged)).collect();
    assert_eq!(
        seen,
        [(written.id, written.resource, false), (staged.id, elsewhere(), true)],
        "all that is written or staged, with who decides it, and nothing else"
    );
}

/// Catches a store that cannot tell the dead from the living.
pub async fn undecided_tells_whether_the_owner_lives<H: QueueHarness>(h: &H) {
    let (store, doomed) = (h.open().await, h.open().await);
    let (ours, theirs) = (mail(h, &store, &["a@example.net"]), mail(h, &store, &["b@example.net"]));
    write(&store, &ours).await;
    write(&doomed, &theirs).await;
    doomed.stage(&[theirs.id]).await.expect("a written message can be staged");
    let alive = |listed: Vec<sendmail_core::Undecided>, id: QueueId| {
        listed.iter().find(|one| one.id == id).map(|one| one.owner_alive)
    };
    assert_eq!(alive(store.undecided().await.expect("a list"), theirs.id), Some(true));
    h.kill(doomed).await;
    let listed = store.undecided().await.expect("a list");
    assert_eq!(alive(listed.clone(), theirs.id), Some(false), "its owner is dead");
    assert_eq!(alive(listed, ours.id), Some(true), "its owner lives");
}

/// Catches a store that forgets staged mail with the process that wrote it.
// Proves: I3, I5
pub async fn undecided_outlives_its_process<H: QueueHarness>(h: &H) {
    let doomed = h.open().await;
    let new = NewMessage { resource: elsewhere(), ..mail(h, &doomed, &["a@example.net"]) };
    write(&doomed, &new).await;
    doomed.stage(&[new.id]).await.expect("a written message can be staged");
    h.kill(doomed).await;
    let store = h.open().await;
    store.sweep().await.expect("a sweep");
    let listed = store.undecided().await.expect("a list");
    assert_eq!(listed.len(), 1, "it is in doubt, and what is in doubt is kept");
    claim_none(&store, "it is in doubt, and what is in doubt is not sent").await;
    publish(&store, new.id).await;
    let claim = claim_one(&store, "recovery published it").await;
    assert_eq!(load(&store, &claim).await.message, new.message);
}

/// Catches a store that keeps published mail in memory.
// Proves: I3
pub async fn published_outlives_its_process<H: QueueHarness>(h: &H) {
    let doomed = h.open().await;
    let new = queue(h, &doomed, &["a@example.net"]).await;
    h.kill(doomed).await;
    let store = h.open().await;
    let claim = claim_one(&store, "it was published before its process died").await;
    assert_eq!(load(&store, &claim).await.message, new.message);
}

/// Catches a store that takes the Message-ID for a key.
pub async fn the_same_message_in_two_envelopes_both_come_through<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let one = queue(h, &store, &["a@example.net"]).await;
    let two = NewMessage { message: one.message.clone(), ..mail(h, &store, &["b@example.net"]) };
    write(&store, &two).await;
    publish(&store, two.id).await;
    let (claims, _) = claim_due(&store).await;
    let mut served = Vec::new();
    for claim in claims {
        served.extend(remaining(&store, &claim).await);
        deliver(&store, claim).await;
    }
    served.sort();
    assert_eq!(served, ["a@example.net", "b@example.net"], "one message, two envelopes");
}

/// Catches a store that touches the bytes.
pub async fn odd_bytes_come_back_exactly<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let long = "x".repeat(998);
    let texts = [
        format!("X-Long: \r\n {}\r\nSubject: =?utf-8?q?odd?=\r\n\r\n{long}\r\n", &long[1..]),
        "Subject: Ümläut\r\n\r\n.\r\n..\r\n.x\r\n\r\n\r\n".to_owned(),
        "X-Envelope-To: nobody@example.net\r\nX-Queue-Id: 1\r\n\r\nFrom here on\r\n".to_owned(),
        "Subject: only a header\r\n".to_owned(),
        "Subject: controls\r\n\r\n\u{1}\u{7f}\u{b}\u{c}\t \r\n \r\n".to_owned(),
    ];
    let mut messages: Vec<Message> = texts.iter().map(|body| text(body)).collect();
    let eight_bit: Vec<u8> = (1..=255).filter(|byte| !b"\r\n".contains(byte)).collect();
    let mut raw = b"Message-ID: <eight@bit>\r\nDate: x\r\n\r\n".to_vec();
    raw.extend_from_slice(&eight_bit);
    messages.push(Message::from_raw(&raw, h.clock().now(), "example.org").expect("valid"));
    for message in messages {
        let new = NewMessage { message, ..mail(h, &store, &["a@example.net"]) };
        write(&store, &new).await;
        publish(&store, new.id).await;
        let claim = claim_one(&store, "it is published").await;
        let loaded = load(&store, &claim).await;
        assert!(loaded.message == new.message, "other bytes came back of {:?}", new.message);
        deliver(&store, claim).await;
    }
}

/// Catches a store that cuts large messages.
pub async fn a_large_message_comes_back_exactly<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let size = (8 << 20).min(store.capabilities().max_message_len / 2);
    let mut new = mail(h, &store, &["a@example.net"]);
    new.message = text(
        &"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(size / 64),
    );
    write(&store, &new).await;
    publish(&store, new.id).await;
    let claim = claim_one(&store, "it is published").await;
    assert!(load(&store, &claim).await.message == new.message, "other bytes came back");
}

/// Catches a store that cuts, sorts or merges recipients.
pub async fn many_recipients_come_back_in_order<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let names: Vec<String> = (0..1000).rev().map(|i| format!("r{i}@example.net")).collect();
    let mut to: Vec<&str> = names.iter().map(String::as_str).collect();
    to.extend(["\"a b,c\"@example.net", "A@EXAMPLE.net", "a@example.net", "ü@example.net"]);
    let new = queue(h, &store, &to).await;
    let claim = claim_one(&store, "it is published").await;
    assert_eq!(load(&store, &claim).await.envelope.recipients(), new.envelope.recipients());
}

/// Catches a store that forgets what the envelope wishes.
pub async fn the_envelope_comes_back_with_its_options<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let mut options = DeliveryOptions::default();
    options.ambiguous = AmbiguousPolicy::Drop;
    options.priority = Priority::High;
    options.tenant = Some("acme".parse().expect("a tenant"));
    options.expires = Some(h.clock().now().saturating_add(std::time::Duration::from_secs(86_400)));
    let mut new = mail(h, &store, &["a@example.net"]);
    let null = sendmail_core::Envelope::parse("", ["a@example.net"]).expect("an envelope");
    new.envelope = null.with_options(options);
    let before = h.clock().now();
    write(&store, &new).await;
    publish(&store, new.id).await;
    let claim = claim_one(&store, "it is published").await;
    let loaded = load(&store, &claim).await;
    assert_eq!(loaded.envelope, new.envelope);
    assert_eq!(loaded.queued_at, before, "its lifetime counts from the hand-over");
}

fn text(text: &str) -> Message {
    let at = sendmail_core::Timestamp::from_millis(1_767_225_600_000);
    Message::from_raw(text.as_bytes(), at, "example.org").expect("the case's own message is valid")
}
