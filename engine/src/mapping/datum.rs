//! The values that programs work with.
//!
//! Rhai keeps what is not its own in a box within a box, and a mapping hands such values around all the time; here a
//! handle is as cheap as a number, a list or a map is shared until somebody changes it, and which function takes a value
//! is told by one look. At the edges (what Rhai itself must do) values go over and back.

use std::{any::TypeId, sync::Arc};

use rhai::{Array, Dynamic, EvalAltResult, INT, ImmutableString, Variant};
use smol_str::SmolStr;

use super::{
    groups::GroupHandle,
    handles::{BundleHandle, NodeHandle, PlanHandle, ResourceHandle},
    pairs::Map,
    program::Flow,
    values::{FieldHandle, MessageHandle, SegmentHandle},
};

/// A value of a script: of three words, for it is moved all the time.
#[derive(Clone, Default)]
pub(super) enum Datum {
    #[default]
    Unit,
    Truth(bool),
    Integer(INT),
    Text(SmolStr),
    List(List),
    Map(Arc<Map>),
    Message(MessageHandle),
    Segment(SegmentHandle),
    Field(FieldHandle),
    Group(GroupHandle),
    Bundle(BundleHandle),
    Resource(ResourceHandle),
    Node(NodeHandle),
    Plan(PlanHandle),
    /// Anything else that Rhai can hold.
    Other(Dynamic),
}

const _: () = assert!(size_of::<Datum>() == 24);

pub(super) type List = Arc<Vec<Datum>>;

/// Of which type a value is, or which type a function asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A function takes whatever comes.
    Any,
    Unit,
    Truth,
    Integer,
    Text,
    List,
    Map,
    Message,
    Segment,
    Field,
    Group,
    Bundle,
    Resource,
    Node,
    Plan,
    Other(TypeId),
}

/// What a native function can ask for.
pub(super) trait Given: Sized + 'static {
    fn kind() -> Kind;
    /// The type that Rhai knows it by.
    fn of_rhai() -> TypeId {
        TypeId::of::<Self>()
    }
    fn is_given(datum: &Datum) -> bool;
    /// The value, if it is of this type.
    fn given(datum: Datum) -> Option<Self>;
}

/// What a native function can give.
pub(super) trait Gives {
    fn gives(self) -> Result<Datum, Flow>;
}

impl<T: Into<Datum>> Gives for T {
    fn gives(self) -> Result<Datum, Flow> {
        Ok(self.into())
    }
}

impl<T: Into<Datum>> Gives for Result<T, Box<EvalAltResult>> {
    fn gives(self) -> Result<Datum, Flow> {
        match self {
            Ok(value) => Ok(value.into()),
            Err(error) => Err(Flow::Fail(error)),
        }
    }
}

/// A type that is kept as Rhai keeps it.
pub(super) trait Opaque: Variant + Clone {}

impl<T: Opaque> Given for T {
    fn kind() -> Kind {
        Kind::Other(TypeId::of::<T>())
    }

    fn is_given(datum: &Datum) -> bool {
        matches!(datum, Datum::Other(value) if value.is::<T>())
    }

    fn given(datum: Datum) -> Option<Self> {
        match datum {
            Datum::Other(value) => value.try_cast(),
            _ => None,
        }
    }
}

impl<T: Opaque> From<T> for Datum {
    fn from(value: T) -> Self {
        Self::Other(Dynamic::from(value))
    }
}

macro_rules! kinds {
    ($($kind:ident($type:ty) as $of_rhai:ty),* $(,)?) => {$(
        impl Given for $type {
            fn kind() -> Kind {
                Kind::$kind
            }

            fn of_rhai() -> TypeId {
                TypeId::of::<$of_rhai>()
            }

            fn is_given(datum: &Datum) -> bool {
                matches!(datum, Datum::$kind(_))
            }

            fn given(datum: Datum) -> Option<Self> {
                match datum {
                    Datum::$kind(value) => Some(value),
                    _ => None,
                }
            }
        }

        impl From<$type> for Datum {
            fn from(value: $type) -> Self {
                Self::$kind(value)
            }
        }
    )*};
}

kinds! {
    Truth(bool) as bool,
    Integer(INT) as INT,
    Text(SmolStr) as ImmutableString,
    List(List) as Array,
    Map(Arc<Map>) as rhai::Map,
    Message(MessageHandle) as MessageHandle,
    Segment(SegmentHandle) as SegmentHandle,
    Field(FieldHandle) as FieldHandle,
    Group(GroupHandle) as GroupHandle,
    Bundle(BundleHandle) as BundleHandle,
    Resource(ResourceHandle) as ResourceHandle,
    Node(NodeHandle) as NodeHandle,
    Plan(PlanHandle) as PlanHandle,
}

impl Given for () {
    fn kind() -> Kind {
        Kind::Unit
    }

    fn is_given(datum: &Datum) -> bool {
        datum.is_unit()
    }

    fn given(datum: Datum) -> Option<Self> {
        matches!(datum, Datum::Unit).then_some(())
    }
}

impl From<()> for Datum {
    fn from((): ()) -> Self {
        Self::Unit
    }
}

impl Given for Datum {
    fn kind() -> Kind {
        Kind::Any
    }

    fn of_rhai() -> TypeId {
        TypeId::of::<Dynamic>()
    }

    fn is_given(_: &Datum) -> bool {
        true
    }

    fn given(datum: Datum) -> Option<Self> {
        Some(datum)
    }
}

impl From<Vec<Datum>> for Datum {
    fn from(items: Vec<Datum>) -> Self {
        Self::List(Arc::new(items))
    }
}

/// A list of what can be a value each.
impl<T: Into<Datum>> FromIterator<T> for Datum {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self::List(Arc::new(items.into_iter().map(Into::into).collect()))
    }
}

/// The value, or `()`.
impl<T: Into<Datum>> From<Option<T>> for Datum {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Unit, Into::into)
    }
}

impl Datum {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unit => Kind::Unit,
            Self::Truth(_) => Kind::Truth,
            Self::Integer(_) => Kind::Integer,
            Self::Text(_) => Kind::Text,
            Self::List(_) => Kind::List,
            Self::Map(_) => Kind::Map,
            Self::Message(_) => Kind::Message,
            Self::Segment(_) => Kind::Segment,
            Self::Field(_) => Kind::Field,
            Self::Group(_) => Kind::Group,
            Self::Bundle(_) => Kind::Bundle,
            Self::Resource(_) => Kind::Resource,
            Self::Node(_) => Kind::Node,
            Self::Plan(_) => Kind::Plan,
            Self::Other(value) => Kind::Other(value.type_id()),
        }
    }

    pub fn is_unit(&self) -> bool {
        matches!(self, Self::Unit)
    }

    /// Whether it is a value or a segment that the message has not.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Field(value) => value.is_absent(),
            Self::Segment(segment) => segment.is_absent(),
            _ => false,
        }
    }

    pub fn as_text(&self) -> Option<&SmolStr> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What Rhai calls its type.
    pub fn type_name(&self) -> &'static str {
        self.clone().into_rhai().type_name()
    }

    /// Whether it is a number, of which Rhai has two types.
    pub fn is_number(&self) -> bool {
        match self {
            Self::Integer(_) => true,
            Self::Other(value) => value.is_float(),
            _ => false,
        }
    }
}

impl From<Dynamic> for Datum {
    fn from(value: Dynamic) -> Self {
        let value = value.flatten();
        match value.type_id() {
            id if id == TypeId::of::<()>() => Self::Unit,
            id if id == TypeId::of::<ImmutableString>() => {
                Self::Text(value.into_immutable_string().unwrap_or_default().as_str().into())
            }
            id if id == TypeId::of::<bool>() => Self::Truth(value.as_bool().unwrap_or_default()),
            id if id == TypeId::of::<INT>() => Self::Integer(value.as_int().unwrap_or_default()),
            id if id == TypeId::of::<Array>() => value.into_array().unwrap_or_default().into_iter().collect(),
            id if id == TypeId::of::<rhai::Map>() => {
                let pairs = value.try_cast::<rhai::Map>().unwrap_or_default();
                Self::Map(Arc::new(pairs.into()))
            }
            _ => Self::handle(value),
        }
    }
}

impl Datum {
    /// One of our own types.
    fn handle(value: Dynamic) -> Self {
        fn of<T: Variant + Clone + Into<Datum>>(value: Dynamic) -> Result<Datum, Dynamic> {
            value.try_cast_result::<T>().map(Into::into)
        }
        let own = of::<FieldHandle>(value)
            .or_else(of::<SegmentHandle>)
            .or_else(of::<MessageHandle>)
            .or_else(of::<GroupHandle>)
            .or_else(of::<NodeHandle>)
            .or_else(of::<ResourceHandle>)
            .or_else(of::<BundleHandle>)
            .or_else(of::<PlanHandle>);
        own.unwrap_or_else(Self::Other)
    }
}

impl Datum {
    /// The value as Rhai has it. `Dynamic::from` would put the value as it is into a box.
    pub fn into_rhai(self) -> Dynamic {
        match self {
            Self::Unit => Dynamic::UNIT,
            Self::Truth(truth) => truth.into(),
            Self::Integer(number) => number.into(),
            Self::Text(text) => text.as_str().into(),
            Self::List(items) => {
                let items = Arc::unwrap_or_clone(items).into_iter();
                Dynamic::from_array(items.map(Self::into_rhai).collect())
            }
            Self::Map(pairs) => {
                let pairs = Arc::unwrap_or_clone(pairs).into_iter();
                Dynamic::from_map(
                    pairs.map(|(name, value)| (name.as_str().into(), value.into_rhai())).collect(),
                )
            }
            Self::Message(handle) => Dynamic::from(handle),
            Self::Segment(handle) => Dynamic::from(handle),
            Self::Field(handle) => Dynamic::from(handle),
            Self::Group(handle) => Dynamic::from(handle),
            Self::Bundle(handle) => Dynamic::from(handle),
            Self::Resource(handle) => Dynamic::from(handle),
            Self::Node(handle) => Dynamic::from(handle),
            Self::Plan(handle) => Dynamic::from(handle),
            Self::Other(value) => value,
        }
    }
}
