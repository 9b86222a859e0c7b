//! Entities by id, and apart from them the ids of those that are not over.
//!
//! A house of some years has a hundred thousand entities that are over and a few dozen that are
//! not. Whoever asks what is to be done looks at the latter alone ([`Entities::open`]).

use std::ops::Deref;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What comes to an end at some time.
pub trait Ends {
    /// Whether nothing is left to be done about it, now or later.
    fn is_over(&self) -> bool;
}

/// Entities of one kind. It reads as the map of all of them; the fold alone changes it, one by one,
/// and account is kept of what is over.
#[derive(Clone)]
pub struct Entities<K, V> {
    all: OrdMap<K, Arc<V>>,
    open: OrdSet<K>,
}

impl<K: Ord + Clone, V: Ends + Clone> Entities<K, V> {
    /// None.
    pub(crate) fn new() -> Self {
        Self {
            all: OrdMap::new(),
            open: OrdSet::new(),
        }
    }

    /// Those that are not over, in the order of their ids.
    pub fn open(&self) -> impl DoubleEndedIterator<Item = &Arc<V>> {
        self.open.iter().filter_map(|id| self.all.get(id))
    }

    /// Takes one in, in place of any with the same id.
    pub(crate) fn insert(&mut self, id: K, entity: Arc<V>) {
        self.account(&id, entity.is_over());
        self.all.insert(id, entity);
    }

    /// Changes one; `None` where there is none with this id.
    pub(crate) fn edit<R>(&mut self, id: &K, edit: impl FnOnce(&mut V) -> R) -> Option<R> {
        let entity = Arc::make_mut(self.all.get_mut(id)?);
        let answer = edit(entity);
        let over = entity.is_over();
        self.account(id, over);
        Some(answer)
    }

    fn account(&mut self, id: &K, over: bool) {
        if over {
            self.open.remove(id);
        } else if !self.open.contains(id) {
            self.open.insert(id.clone());
        }
    }
}

impl<K: Ord + std::fmt::Debug, V: std::fmt::Debug> std::fmt::Debug for Entities<K, V> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.all.fmt(formatter)
    }
}

impl<K, V> Deref for Entities<K, V> {
    type Target = OrdMap<K, Arc<V>>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl<K: Ord + Clone + Serialize, V: Serialize> Serialize for Entities<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.all.serialize(serializer)
    }
}

impl<'de, K, V> Deserialize<'de> for Entities<K, V>
where
    K: Ord + Clone + Deserialize<'de>,
    V: Ends + Clone + Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = OrdMap::<K, Arc<V>>::deserialize(deserializer)?;
        let open = all.iter().filter(|(_, entity)| !entity.is_over());
        let open = open.map(|(id, _)| id.clone()).collect();
        Ok(Self { all, open })
    }
}
