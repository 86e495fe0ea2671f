//! Which messages a consumer wants.

use rocketmq_proto::v2::Code;

use crate::state::{message::Stored, refusal::Refusal};

/// A filter by tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    All,
    /// The message's tag is one of these.
    Tags(Vec<String>),
}

impl Filter {
    /// Reads `*`, `a` or `a || b`.
    pub(crate) fn tags(expression: &str) -> Result<Self, Refusal> {
        let expression = expression.trim();
        if expression.is_empty() || expression == "*" {
            return Ok(Self::All);
        }
        let tags: Vec<String> = expression
            .split("||")
            .map(str::trim)
            .filter(|tag| !tag.is_empty())
            .map(str::to_owned)
            .collect();
        if tags.is_empty() {
            let message = format!("filter expression {expression:?} names no tag");
            return Err(Refusal::new(Code::IllegalFilterExpression, message));
        }
        Ok(Self::Tags(tags))
    }

    pub(crate) fn wants(&self, message: &Stored) -> bool {
        match self {
            Self::All => true,
            Self::Tags(tags) => message
                .draft
                .tag
                .as_ref()
                .is_some_and(|tag| tags.iter().any(|t| t == tag)),
        }
    }
}
