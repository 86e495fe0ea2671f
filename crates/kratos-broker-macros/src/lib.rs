//! The attribute macro of kratos-broker, which exports it with the feature `macros`.

mod debug_handler;

use proc_macro::TokenStream;

/// Says what is wrong with a message handler, at the argument, return type or await that is wrong.
///
/// A function that does not fit is refused by `subscribe` with a list of what a handler may be; this
/// attribute checks the function by itself, and costs nothing at run time. Handlers need it for no
/// other purpose.
///
/// A function that takes a `Batch` is checked as a handler for `subscribe_batch`. The state is what
/// `State<T>` takes; a handler that takes several parts of it names the whole:
/// `#[debug_handler(state = App)]`.
///
/// It goes on free functions without type parameters.
///
/// ```
/// use kratos_broker::{AnyError, Bytes, State, debug_handler};
///
/// #[derive(Clone)]
/// struct Store;
///
/// #[debug_handler]
/// async fn save(State(store): State<Store>, body: Bytes) -> Result<(), AnyError> {
///     # let _ = (store, body);
///     Ok(())
/// }
/// ```
///
/// ```compile_fail
/// use kratos_broker::debug_handler;
///
/// #[debug_handler]
/// async fn save(body: String) {} // `String` is not an extractor
/// ```
#[proc_macro_attribute]
pub fn debug_handler(attribute: TokenStream, item: TokenStream) -> TokenStream {
    debug_handler::expand(attribute.into(), &item.into()).into()
}
