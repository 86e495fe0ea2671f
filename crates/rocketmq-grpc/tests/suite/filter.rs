//! Which messages a group gets.
//!
//! Topics have one queue: what is sent last and comes shows that nothing before it was held up.

use rocketmq_grpc::{Error, Filter, Message};

use crate::{
    listener::assert_each_once,
    site::{Group, Kind, Site, send_each},
};

const COUNT: usize = 10;

/// Of messages with each of the tags, those of `wanted` come, and nothing else.
async fn tags_that_come(sent: &[&str], filter: Filter, wanted: &[&str]) {
    let (site, topic, group) = Site::with_one_queue(Kind::Normal, Group::PLAIN).await;
    let listener = site.listen_for(&topic, &group, filter).await;
    let producer = site.producer(&topic).await;
    let mut due = Vec::new();
    for tag in sent {
        let messages = (0..COUNT).map(|n| Message::new(&topic, n.to_string()).tag(*tag));
        let ids = send_each(&producer, messages).await;
        if wanted.contains(tag) {
            due.extend(ids);
        }
    }
    listener.wait_for(due.len()).await;
    assert_each_once(&listener.stop().await, &due);
}

/// TagFilterTest.testSendTagA_SubTagAorTagB
#[tokio::test]
async fn one_of_two_tags_comes() {
    tags_that_come(&["a"], Filter::tags("a || b"), &["a"]).await;
}

/// TagFilterTest.testSndTagATagB_SubTagATagB
#[tokio::test]
async fn both_of_two_tags_come() {
    tags_that_come(&["a", "b"], Filter::tags("a || b"), &["a", "b"]).await;
}

/// TagFilterTest.testSendTagAAndTagB_SubAll
#[tokio::test]
async fn without_a_filter_all_tags_come() {
    tags_that_come(&["a", "b"], Filter::all(), &["a", "b"]).await;
}

/// TagFilterTest.testSendTagA_SubTagB: none of the first, shown by the second
#[tokio::test]
async fn another_tag_does_not_come() {
    tags_that_come(&["a", "b"], Filter::tags("b"), &["b"]).await;
}

/// TagFilterTest.testSendTagA_SubTagA
#[tokio::test]
async fn the_tag_comes() {
    tags_that_come(&["a"], Filter::tags("a"), &["a"]).await;
}

/// TagFilterTest.testLongTagSize
#[tokio::test]
async fn a_tag_of_10_kib_comes() {
    let tag = "x".repeat(10 << 10);
    tags_that_come(&[&tag], Filter::tags(&tag), &[&tag]).await;
}

/// TagFilterTest.testSubTagWithSpace
#[tokio::test]
async fn blanks_around_tags_do_not_matter() {
    tags_that_come(&["a", "b"], Filter::tags(" a || b "), &["a", "b"]).await;
}

/// TagFilterTest.testTagWithSpecialSymbol02
#[tokio::test]
async fn a_star_may_be_a_tag() {
    tags_that_come(&["*"], Filter::tags("*"), &["*"]).await;
}

/// TagFilterTest.testTagWithSpecialSymbol03
#[tokio::test]
async fn bars_without_a_tag_between_them_do_not_matter() {
    tags_that_come(&["c", "a", "b"], Filter::tags("a||||b"), &["a", "b"]).await;
}

/// TagFilterTest.testSendTagWithSameHashCode_SubWithOne
#[tokio::test]
async fn another_tag_of_the_same_hash_does_not_come() {
    tags_that_come(&["Aa", "BB"], Filter::tags("BB"), &["BB"]).await;
}

/// TagFilterTest.testTagCaseSensitive
#[tokio::test]
async fn upper_and_lower_case_are_different_tags() {
    tags_that_come(&["bb", "BB"], Filter::tags("BB"), &["BB"]).await;
}

async fn sent_with_tag(tag: &str) -> Error {
    let (site, topic, _) = Site::with(Kind::Normal, Group::PLAIN).await;
    let producer = site.producer(&topic).await;
    let sent = producer.send(Message::new(&topic, "x").tag(tag)).await;
    sent.unwrap_err()
}

/// TagFilterTest.testTagWithSpecialSymbol01
#[tokio::test]
async fn a_tag_with_a_bar_is_refused() {
    assert!(sent_with_tag("|@").await.is_invalid());
}

/// TagFilterTest.testTagWithBlankSymbol
#[tokio::test]
async fn a_blank_tag_is_refused() {
    assert!(sent_with_tag("").await.is_invalid());
    assert!(sent_with_tag(" ").await.is_invalid());
}

// === conditions ===

/// Ten messages with each of the prices, region and tag the same; those of `wanted` come.
async fn prices_that_come(kind: Kind, sent: &[&str], filter: Filter, wanted: &[&str]) {
    let of_group = match kind {
        Kind::Fifo => Group::ORDERLY,
        _ => Group::PLAIN,
    };
    let (site, topic, group) = Site::with_one_queue(kind, of_group).await;
    let listener = site.listen_for(&topic, &group, filter).await;
    let producer = site.producer(&topic).await;
    let mut due = Vec::new();
    for price in sent {
        let messages = (0..COUNT).map(|n| {
            let message = Message::new(&topic, n.to_string())
                .tag("a")
                .property("region", "cn-hangzhou")
                .property("price", *price);
            match kind {
                Kind::Fifo => message.group("g"),
                _ => message,
            }
        });
        let ids = send_each(&producer, messages).await;
        if wanted.contains(price) {
            due.extend(ids);
        }
    }
    // Has what no other has.
    let marker = Message::new(&topic, "marker")
        .tag("a")
        .property("product", "MQ")
        .property("region", "cn-hangzhou")
        .property("price", "99");
    let marker = match kind {
        Kind::Fifo => marker.group("g"),
        _ => marker,
    };
    due.extend(send_each(&producer, [marker]).await);
    listener.wait_for(due.len()).await;
    let got = listener.stop().await;
    assert_each_once(&got, &due);
    if matches!(kind, Kind::Fifo) {
        assert_eq!(crate::listener::ids(&got), due);
    }
}

async fn all_prices(kind: Kind) {
    prices_that_come(kind, &["10", "30"], Filter::all(), &["10", "30"]).await;
}

async fn prices_between(kind: Kind) {
    let between = Filter::sql("(price BETWEEN 10 AND 100) AND region IS NOT NULL");
    prices_that_come(kind, &["9", "30", "101"], between, &["30"]).await;
}

async fn unknown_property(kind: Kind) {
    prices_that_come(kind, &["30"], Filter::sql("product = 'MQ'"), &[]).await;
}

/// SqlFilterTest.testSendWithTagAndPropsRecvWithOutFilter
#[tokio::test]
async fn without_a_condition_all_properties_come() {
    all_prices(Kind::Normal).await;
}

/// SqlFilterTest.testSqlSendTwoProps_SubFilterOne
#[tokio::test]
async fn properties_that_meet_the_condition_come() {
    let filter = Filter::sql("price>20");
    prices_that_come(Kind::Normal, &["10", "30"], filter, &["30"]).await;
}

/// SqlFilterTest.testSendWithTagAndPropsRecvWithBetween
#[tokio::test]
async fn properties_between_two_values_come() {
    prices_between(Kind::Normal).await;
}

/// SqlFilterTest.testSendWithTagAndPropsRecvWithUnknownProps: none, shown by the one that has it
#[tokio::test]
async fn messages_without_the_property_do_not_come() {
    unknown_property(Kind::Normal).await;
}

/// SqlFilterWithOrderMsgTest.testSendWithTagAndPropsRecvWithOutFilter
#[tokio::test]
async fn in_order_without_a_condition_all_properties_come() {
    all_prices(Kind::Fifo).await;
}

/// SqlFilterWithOrderMsgTest.testSendWithTagAndPropsRecvWithBetween
#[tokio::test]
async fn in_order_properties_between_two_values_come() {
    prices_between(Kind::Fifo).await;
}

/// SqlFilterWithOrderMsgTest.testSendWithTagAndPropsRecvWithUnknownProps
#[tokio::test]
async fn in_order_messages_without_the_property_do_not_come() {
    unknown_property(Kind::Fifo).await;
}
