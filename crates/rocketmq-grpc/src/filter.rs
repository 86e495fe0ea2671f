//! Which messages of a topic a group wants.

use rocketmq_proto::v2 as pb;

use crate::Error;

/// Which messages of a topic a group wants.
///
/// A group has one filter per topic on the server: all its members must use the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    kind: pb::FilterType,
    expression: String,
}

impl Filter {
    /// All messages.
    #[must_use]
    pub fn all() -> Self {
        Self {
            kind: pb::FilterType::Tag,
            expression: "*".to_owned(),
        }
    }

    /// Messages with one of the tags, written `a || b`; `*` is all. Blanks around a tag do not
    /// matter, upper and lower case do.
    #[must_use]
    pub fn tags(expression: impl Into<String>) -> Self {
        Self {
            kind: pb::FilterType::Tag,
            expression: expression.into(),
        }
    }

    /// Messages whose properties meet a condition, as `price > 20 AND region = 'eu'`. The broker
    /// must run with `enablePropertyFilter=true`.
    #[must_use]
    pub fn sql(condition: impl Into<String>) -> Self {
        Self {
            kind: pb::FilterType::Sql,
            expression: condition.into(),
        }
    }

    pub(crate) fn validate(&self, topic: &str) -> Result<(), Error> {
        let blank = self.expression.trim().is_empty();
        let tags = self.kind == pb::FilterType::Tag;
        let no_tags = tags && self.tag_list().next().is_none();
        let no_tag = tags && self.tag_list().any(|tag| tag.contains('|'));
        if blank || no_tags || no_tag || self.expression.chars().any(char::is_control) {
            return Err(Error::config(format!(
                "the filter {:?} of topic {topic} is neither `*`, nor tags joined with `||`, nor a \
                 condition",
                self.expression
            )));
        }
        Ok(())
    }

    /// Whether a message with this tag is one of them, as far as tags tell.
    pub(crate) fn wants(&self, tag: Option<&str>) -> bool {
        if self.kind != pb::FilterType::Tag {
            return true;
        }
        self.tag_list().any(|it| it == "*" || Some(it) == tag)
    }

    /// `a || || b` are two tags, to the server, too.
    fn tag_list(&self) -> impl Iterator<Item = &str> {
        let parts = self.expression.split("||").map(str::trim);
        parts.filter(|it| !it.is_empty())
    }

    pub(crate) fn to_proto(&self) -> pb::FilterExpression {
        let expression = match self.kind {
            pb::FilterType::Tag => self.tag_list().collect::<Vec<_>>().join(" || "),
            pb::FilterType::Sql | pb::FilterType::Unspecified => self.expression.clone(),
        };
        pb::FilterExpression {
            r#type: self.kind.into(),
            expression,
        }
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_that_name_no_tag_are_refused() {
        for good in [
            Filter::all(),
            Filter::tags("a||b"),
            Filter::tags(" a "),
            Filter::tags("a||"),
            Filter::sql("a > 1"),
        ] {
            good.validate("t").unwrap();
        }
        for bad in [
            Filter::tags(""),
            Filter::tags("||"),
            Filter::tags("@|||@"),
            Filter::tags("a | b"),
            Filter::tags("a\n"),
            Filter::sql(" "),
        ] {
            assert!(bad.validate("t").unwrap_err().is_invalid());
        }
    }

    #[test]
    fn tags_are_compared_exactly_and_blanks_do_not_matter() {
        let filter = Filter::tags(" AaAa||b ");
        assert_eq!(filter.to_proto().expression, "AaAa || b");
        assert_eq!(Filter::tags("a||||b||").to_proto().expression, "a || b");
        for (tag, wanted) in [
            (Some("AaAa"), true),
            (Some("b"), true),
            // The same hash.
            (Some("BBBB"), false),
            (Some("B"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(filter.wants(tag), wanted, "{tag:?}");
        }
        assert!(Filter::all().wants(None) && Filter::sql("a > 1").wants(Some("x")));
    }
}
