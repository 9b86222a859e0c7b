//! From a request to the facts that rules see, as plain values.
//!
//! The names here are those of `schema.cedarschema`. A test validates the facts of every action
//! against it.

mod context;
mod things;

use std::collections::BTreeSet;
use std::fmt;

use portcullis_model::KeyClass;

use crate::approvals::Needed;
use crate::request::Request;

/// A value of a fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Bool(bool),
    Long(i64),
    Text(String),
    Texts(Vec<String>),
    Entity(Uid),
    Entities(Vec<Uid>),
    Record(Attributes),
}

pub(crate) type Attributes = Vec<(&'static str, Value)>;

impl Value {
    fn texts(values: &BTreeSet<String>) -> Self {
        Self::Texts(values.iter().cloned().collect())
    }

    fn text(value: impl fmt::Display) -> Self {
        Self::Text(value.to_string())
    }

    fn count(value: u64) -> Self {
        Self::Long(i64::try_from(value).unwrap_or(i64::MAX))
    }

    const fn key_class(class: KeyClass) -> Self {
        Self::Long(match class {
            KeyClass::Software => 0,
            KeyClass::Presence => 1,
            KeyClass::Verified => 2,
        })
    }
}

/// Most members of a set that a message shows; the rest is counted.
const SHOWN_MAX_MEMBERS: usize = 5;

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
            f.write_str("[")?;
            for (at, item) in items.iter().take(SHOWN_MAX_MEMBERS).enumerate() {
                let comma = if at == 0 { "" } else { ", " };
                write!(f, "{comma}{item}")?;
            }
            match items.len().checked_sub(SHOWN_MAX_MEMBERS) {
                Some(more) if more > 0 => write!(f, " and {more} more]"),
                Some(_) | None => f.write_str("]"),
            }
        }
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Long(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::Texts(values) => {
                let quoted: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
                list(f, &quoted)
            }
            Self::Entity(uid) => write!(f, "{uid}"),
            Self::Entities(uids) => list(f, uids),
            Self::Record(fields) => {
                let shown: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| format!("{name}: {value}"))
                    .collect();
                write!(f, "{{{}}}", shown.join(", "))
            }
        }
    }
}

/// The name of an entity: its type in the schema and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uid {
    pub(crate) kind: &'static str,
    pub(crate) id: String,
}

impl Uid {
    pub(crate) fn new(kind: &'static str, id: impl fmt::Display) -> Self {
        Self {
            kind,
            id: id.to_string(),
        }
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind, self.id)
    }
}

/// An entity with what it is in and what it has.
#[derive(Clone, Debug)]
pub(crate) struct Thing {
    pub(crate) uid: Uid,
    pub(crate) parents: Vec<Uid>,
    pub(crate) attributes: Attributes,
}

impl Thing {
    fn plain(uid: Uid) -> Self {
        Self {
            uid,
            parents: Vec::new(),
            attributes: Vec::new(),
        }
    }

    fn within(uid: Uid, parents: Vec<Uid>) -> Self {
        Self {
            uid,
            parents,
            attributes: Vec::new(),
        }
    }
}

/// Everything that rules see of a request.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) principal: Uid,
    pub(crate) action: &'static str,
    pub(crate) resource: Uid,
    pub(crate) things: Vec<Thing>,
    pub(crate) context: Attributes,
}

impl Facts {
    /// The facts of `request`, as if `more` approvals stood beside those that do.
    pub(crate) fn of(request: &Request, more: Option<Needed>) -> Self {
        let mut things = Vec::with_capacity(4);
        let principal = things::actor(&request.actor, &mut things);
        let resource = things::resource(&request.action, &mut things);
        let mut context = context::common(request);
        context::specific(request, more, &mut context);
        Self {
            principal,
            action: request.action.name(),
            resource,
            things,
            context,
        }
    }

    /// The value at a path such as `context.task.present` or `resource.deployers`.
    pub(crate) fn at(&self, path: &str) -> Option<&Value> {
        let mut steps = path.split('.');
        let mut attributes = match steps.next()? {
            "context" => &self.context,
            "principal" => self.attributes(&self.principal)?,
            "resource" => self.attributes(&self.resource)?,
            _ => return None,
        };
        let mut found = None;
        for step in steps {
            let (_, value) = attributes.iter().find(|(name, _)| *name == step)?;
            found = Some(value);
            if let Value::Record(fields) = value {
                attributes = fields;
            }
        }
        found
    }

    fn attributes(&self, uid: &Uid) -> Option<&Attributes> {
        self.things
            .iter()
            .find(|thing| thing.uid == *uid)
            .map(|thing| &thing.attributes)
    }
}
