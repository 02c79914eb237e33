//! What scripts may call, registered once and kept twice: with Rhai, which reads scripts and works their constants out,
//! and by name and types, so that a [`Program`](super::program::Program) finds a function without hashing anything.

use std::{any::TypeId, collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use rhai::{Dynamic, Engine, EvalAltResult, NativeCallContext, RhaiNativeFunc, Variant};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// A native function as Rhai has it: the arguments are of the types it was registered with, and are used up.
type Call = dyn Fn(Option<NativeCallContext<'_>>, &mut [&mut Dynamic]) -> Result<Dynamic> + Send + Sync;

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
    types: Vec<TypeId>,
    call: Arc<Call>,
    has_context: bool,
    /// Whether it works on its first argument in place.
    pub in_place: bool,
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

    pub fn register_fn<A, const N: usize, const X: bool, R, const F: bool, C>(
        &mut self,
        name: &str,
        call: C,
    ) -> &mut Self
    where
        A: 'static,
        R: Variant + Clone,
        C: RhaiNativeFunc<A, N, X, R, F> + Clone + Send + Sync + 'static,
    {
        self.engine.register_fn(name, call.clone());
        self.keep(name, call);
        self
    }

    pub fn register_get<A, const X: bool, R, const F: bool, C>(&mut self, name: &str, call: C) -> &mut Self
    where
        A: 'static,
        R: Variant + Clone,
        C: RhaiNativeFunc<A, 1, X, R, F> + Clone + Send + Sync + 'static,
    {
        self.register_fn(&getter(name), call)
    }

    pub fn register_indexer_get<A, const X: bool, R, const F: bool, C>(&mut self, call: C) -> &mut Self
    where
        A: 'static,
        R: Variant + Clone,
        C: RhaiNativeFunc<A, 2, X, R, F> + Clone + Send + Sync + 'static,
    {
        self.register_fn(INDEXER, call)
    }

    fn keep<A, const N: usize, const X: bool, R, const F: bool, C>(&mut self, name: &str, call: C)
    where
        A: 'static,
        R: Variant + Clone,
        C: RhaiNativeFunc<A, N, X, R, F> + 'static,
    {
        let function = call.into_rhai_function(false, false);
        let Some(call) = function.get_native_fn().cloned() else { return };
        let types = C::param_types().to_vec();
        let native = Native { types, call, has_context: X, in_place: function.is_method() };
        self.natives.functions.entry((name.to_owned(), N)).or_default().push(native);
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
        found
            .sort_by_key(|native| native.types.iter().filter(|own| **own == TypeId::of::<Dynamic>()).count());
        found
    }
}

impl Native {
    /// Whether it takes these.
    pub fn takes(&self, arguments: &[Dynamic]) -> bool {
        let fits =
            |(own, given): (&TypeId, &Dynamic)| *own == given.type_id() || *own == TypeId::of::<Dynamic>();
        self.types.len() == arguments.len() && self.types.iter().zip(arguments).all(fits)
    }

    /// Calls it. The arguments are used up, but for the first one of a function that works in place.
    pub fn call<'a>(
        &self,
        context: impl FnOnce() -> NativeCallContext<'a>,
        arguments: &mut [Dynamic],
    ) -> Result<Dynamic> {
        let context = self.has_context.then(context);
        by_reference(arguments, |arguments| (self.call)(context, arguments))
    }
}

/// Gives the arguments as Rhai passes them.
pub(super) fn by_reference<T>(arguments: &mut [Dynamic], work: impl FnOnce(&mut [&mut Dynamic]) -> T) -> T {
    match arguments {
        [] => work(&mut []),
        [one] => work(&mut [one]),
        [one, two] => work(&mut [one, two]),
        [one, two, three] => work(&mut [one, two, three]),
        [one, two, three, four] => work(&mut [one, two, three, four]),
        more => work(&mut more.iter_mut().collect::<Vec<_>>()),
    }
}
