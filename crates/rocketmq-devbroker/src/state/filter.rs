//! Which messages a consumer wants.

mod sql;

use std::sync::Arc;

use rocketmq_proto::v2::{Code, FilterType};

use crate::state::{filter::sql::Sql, message::Stored, refusal::Refusal};

/// A filter by tag or by properties.
#[derive(Clone, Debug)]
pub(crate) enum Filter {
    All,
    /// The message's tag is one of these.
    Tags(Vec<String>),
    Sql(Arc<Sql>),
}

impl Filter {
    /// Reads an expression of the given type.
    pub(crate) fn parse(kind: FilterType, expression: &str) -> Result<Self, Refusal> {
        match kind {
            FilterType::Sql => Self::sql(expression),
            FilterType::Tag | FilterType::Unspecified => Self::tags(expression),
        }
    }

    fn sql(expression: &str) -> Result<Self, Refusal> {
        if expression.is_empty() {
            let message = "an SQL condition cannot be empty";
            return Err(Refusal::new(Code::IllegalFilterExpression, message));
        }
        let parsed = Sql::parse(expression).map_err(|error| {
            let message = format!("parse the consumer's subscription failed: {error}");
            Refusal::new(Code::InternalServerError, message)
        })?;
        Ok(Self::Sql(Arc::new(parsed)))
    }

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
        let draft = &message.draft;
        match self {
            Self::All => true,
            Self::Tags(tags) => draft
                .tag
                .as_ref()
                .is_some_and(|tag| tags.iter().any(|t| t == tag)),
            Self::Sql(sql) => sql.matches(&|name| match name {
                TAGS => draft.tag.as_deref(),
                name => draft.properties.get(name).map(String::as_str),
            }),
        }
    }
}

/// How an expression names the tag.
const TAGS: &str = "TAGS";
