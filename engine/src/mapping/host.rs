//! What scripts may call, registered once and kept twice: with Rhai, which reads scripts and works their constants out,
//! and by name and types, so that a [`Program`](super::program::Program) finds a function without hashing anything.
//!
//! A native function is a closure over values of fixed types, the first of which it may ask for as `&mut`. It gets a copy
//! there: what scripts hold are handles, and only functions of Rhai's own change a value in place.

use std::{any::TypeId, collections::HashMap, mem::take, sync::Arc};

use foldhash::fast::RandomState;
use rhai::{Dynamic, Engine, Variant};

use super::{
    datum::{Datum, Given, Gives, Kind},
    program::Flow,
};

/// What a program has of a native function, as it has everything else.
type Done = Result<Datum, Flow>;

/// A native function over values. They are used up where they are of the types that it asks for; else nothing is done.
type Call = dyn Fn(&mut [Datum]) -> Option<Done> + Send + Sync;

/// An engine that learns functions.
pub(super) struct Host {
    pub engine: Engine,
    pub natives: Natives,
}

/// All native functions of ours, by name and number of arguments.
#[derive(Default)]
pub(super) struct Natives {
    functions: HashMap<(String, usize), Vec<Native>, RandomState>,
}

/// One native function, for arguments of certain types.
#[derive(Clone)]
pub(super) struct Native {
    kinds: Arc<[Kind]>,
    call: Arc<Call>,
}

/// The name under which Rhai keeps what reads an index.
pub(super) const INDEXER: &str = "index$get$";

impl Host {
    pub fn new(engine: Engine) -> Self {
        Self { engine, natives: Natives::default() }
    }

    pub fn register_type_with_name<T: Variant + Clone>(&mut self, name: &str) -> &mut Self {
        self.engine.register_type_with_name::<T>(name);
        self
    }

    pub fn register_fn<M, C: Closure<M>>(&mut self, name: &str, closure: C) -> &mut Self {
        let (kinds, of_rhai): (Vec<Kind>, Vec<TypeId>) = C::types().into_iter().unzip();
        let call: Arc<Call> = Arc::new(move |arguments: &mut [Datum]| closure.call(arguments));
        let own = call.clone();
        self.engine.register_raw_fn(name, of_rhai, move |_, arguments| {
            let mut given: Vec<Datum> =
                arguments.iter().map(|argument| Datum::from(Dynamic::clone(argument))).collect();
            match own(&mut given) {
                Some(Ok(value)) => Ok(value.into_rhai()),
                Some(Err(Flow::Fail(error))) => Err(error),
                None | Some(Err(_)) => Err("a native function was given what it does not take".into()),
            }
        });
        let native = Native { kinds: kinds.into(), call };
        self.natives.functions.entry((name.to_owned(), native.kinds.len())).or_default().push(native);
        self
    }

    pub fn register_get<M, C: Closure<M>>(&mut self, name: &str, closure: C) -> &mut Self {
        self.register_fn(&getter(name), closure)
    }

    pub fn register_indexer_get<M, C: Closure<M>>(&mut self, closure: C) -> &mut Self {
        self.register_fn(INDEXER, closure)
    }
}

/// The name under which Rhai keeps what reads a property.
pub(super) fn getter(property: &str) -> String {
    format!("get${property}")
}

impl Natives {
    /// The functions of a name and a number of arguments, those that ask for a type before those that take any.
    pub fn named(&self, name: &str, arguments: usize) -> Vec<Native> {
        let mut found = self.functions.get(&(name.to_owned(), arguments)).cloned().unwrap_or_default();
        found.sort_by_key(|native| native.kinds.iter().filter(|kind| **kind == Kind::Any).count());
        found
    }
}

impl Native {
    /// Calls the first that takes these, which are used up; nothing where none does.
    pub fn call_one(natives: &[Self], arguments: &mut [Datum]) -> Option<Done> {
        natives.iter().find_map(|native| (native.call)(arguments))
    }
}

/// A closure that can be a native function; `M` is its shape.
pub(super) trait Closure<M>: Send + Sync + 'static {
    /// The types it asks for, ours and Rhai's.
    fn types() -> Vec<(Kind, TypeId)>;
    /// Nothing, and nothing used up, where the arguments are of other types.
    fn call(&self, arguments: &mut [Datum]) -> Option<Done>;
}

/// The shape of a closure that takes values, and of one that asks for its first one as `&mut`.
pub(super) struct Values;
pub(super) struct Lent<T>(T);

macro_rules! closures {
    ($($argument:ident)*) => {
        impl<C, R: Gives, $($argument: Given),*> Closure<(Values, R, $($argument,)*)> for C
        where
            C: Fn($($argument),*) -> R + Send + Sync + 'static,
        {
            fn types() -> Vec<(Kind, TypeId)> {
                vec![$(($argument::kind(), $argument::of_rhai())),*]
            }

            #[allow(non_snake_case)]
            fn call(&self, arguments: &mut [Datum]) -> Option<Done> {
                let [$($argument),*] = arguments else { return None };
                if !(true $(&& $argument::is_given($argument))*) {
                    return None;
                }
                $(let $argument = $argument::given(take($argument))?;)*
                Some(self($($argument),*).gives())
            }
        }

        impl<C, R: Gives, First: Given, $($argument: Given),*> Closure<(Lent<First>, R, $($argument,)*)> for C
        where
            C: Fn(&mut First, $($argument),*) -> R + Send + Sync + 'static,
        {
            fn types() -> Vec<(Kind, TypeId)> {
                vec![(First::kind(), First::of_rhai()), $(($argument::kind(), $argument::of_rhai())),*]
            }

            #[allow(non_snake_case)]
            fn call(&self, arguments: &mut [Datum]) -> Option<Done> {
                let [first $(, $argument)*] = arguments else { return None };
                if !(First::is_given(first) $(&& $argument::is_given($argument))*) {
                    return None;
                }
                let mut first = First::given(take(first))?;
                $(let $argument = $argument::given(take($argument))?;)*
                Some(self(&mut first, $($argument),*).gives())
            }
        }
    };
}

closures!();
closures!(A);
closures!(A B);
closures!(A B D);
closures!(A B D E);
closures!(A B D E F);
closures!(A B D E F G);
