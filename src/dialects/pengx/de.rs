//! A tree into a typed body.
//!
//! `None` is an absent value, an empty list or an empty mapping; a single value stands for a list of one.

use std::collections::btree_map;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::xml::Node;

/// What of a body does not fit its type.
#[derive(Debug, PartialEq, Eq)]
pub struct Misfit(String);

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(why: T) -> Self {
        Self(why.to_string())
    }
}

pub fn from_node<T: DeserializeOwned>(node: Node) -> Result<T, Misfit> {
    T::deserialize(Tree(node))
}

struct Tree(Node);

impl<'de> de::Deserializer<'de> for Tree {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            Node::None => visitor.visit_unit(),
            Node::Text(text) => visitor.visit_string(text),
            Node::List(items) => visitor.visit_seq(Items(items.into_iter())),
            Node::Map(entries) => visitor.visit_map(Entries { rest: entries.into_iter(), current: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            Node::None => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let items = match self.0 {
            Node::None => Vec::new(),
            Node::List(items) => items,
            single => vec![single],
        };
        visitor.visit_seq(Items(items.into_iter()))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            Node::None => Self(Node::Map(Default::default())).deserialize_any(visitor),
            Node::Map(_) => self.deserialize_any(visitor),
            Node::Text(_) => Err(Misfit("elements are needed, not text".to_owned())),
            Node::List(_) => Err(Misfit("elements are needed, not a list".to_owned())),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.deserialize_map(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct enum identifier ignored_any
    }
}

struct Items(std::vec::IntoIter<Node>);

impl<'de> SeqAccess<'de> for Items {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misfit> {
        self.0.next().map(|item| seed.deserialize(Tree(item))).transpose()
    }
}

struct Entries {
    rest: btree_map::IntoIter<String, Node>,
    current: Option<(String, Node)>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        self.current = self.rest.next();
        let Some((key, _)) = &self.current else { return Ok(None) };
        let key: StrDeserializer<'_, Misfit> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let Some((key, node)) = self.current.take() else { return Err(Misfit("a value has no key".to_owned())) };
        seed.deserialize(Tree(node)).map_err(|Misfit(why)| Misfit(format!("{key}: {why}")))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::dialects::pengx::xml;

    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(default)]
    struct Body {
        name: Option<String>,
        items: Vec<String>,
        inner: Option<Inner>,
    }

    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(default)]
    struct Inner {
        a: Option<String>,
    }

    fn read(document: &str) -> Result<Body, String> {
        from_node(xml::parse(document).unwrap()).map_err(|why| why.to_string())
    }

    #[test]
    fn structs() {
        let items = ["0", "1"].map(str::to_owned).to_vec();
        let inner = Some(Inner { a: Some("x".to_owned()) });
        assert_eq!(
            read(
                "<vm><unknown><b/></unknown><items><list-item>0</list-item><list-item>1</list-item></items><name>n</name><inner><a>x</a></inner></vm>"
            ),
            Ok(Body { name: Some("n".to_owned()), items, inner })
        );
        assert_eq!(read("<vm/>"), Ok(Body::default()));
        assert_eq!(read("<vm><name/><items/><inner/></vm>"), Ok(Body::default()));
        assert_eq!(read("<vm><items>0</items></vm>").unwrap().items, ["0"]);
    }

    #[test]
    fn misfits_name_their_field() {
        assert_eq!(read("<vm>text</vm>").unwrap_err(), "elements are needed, not text");
        assert_eq!(read("<vm><list-item/></vm>").unwrap_err(), "elements are needed, not a list");
        assert_eq!(read("<vm><inner>x</inner></vm>").unwrap_err(), "inner: elements are needed, not text");
        assert!(read("<vm><inner><a><b/></a></inner></vm>").unwrap_err().starts_with("inner: a: "));
    }
}
