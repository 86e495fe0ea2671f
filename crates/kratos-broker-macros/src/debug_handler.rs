//! A handler, and beside it functions that do not compile where the handler is wrong.
//!
//! Each check is a call of its own whose tokens have the span of what it checks, so that the
//! compiler's message points there.

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Error, FnArg, GenericArgument, Ident, ItemFn, PathArguments, Result, ReturnType, Token, Type,
    parse::{Parse, ParseStream},
    spanned::Spanned,
};

/// Most arguments of a handler.
const ARGUMENTS_MAX: usize = 8;

/// `state = App`, or nothing.
struct Options {
    state: Option<Type>,
}

/// A handler's arguments and what they make of it.
struct Handler<'a> {
    function: &'a ItemFn,
    arguments: Vec<&'a Type>,
    state: Type,
    /// The `T` of the last argument, `Batch<T>`.
    batch: Option<&'a Type>,
}

pub(crate) fn expand(attribute: TokenStream, item: &TokenStream) -> TokenStream {
    let checks = syn::parse2::<ItemFn>(item.clone()).and_then(|function| {
        let options = syn::parse2::<Options>(attribute)?;
        Ok(Handler::new(&function, options)?.checks())
    });
    // The function stays, right or wrong: its users are not to be told that there is none.
    let checks = checks.unwrap_or_else(|error| error.to_compile_error());
    quote!(#item #checks)
}

// === impl Options ===

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if input.is_empty() {
            return Ok(Self { state: None });
        }
        let name: Ident = input.parse()?;
        if name != "state" {
            return Err(Error::new(name.span(), "expected `state = <type>`"));
        }
        input.parse::<Token![=]>()?;
        let state = Some(input.parse()?);
        input.parse::<Option<Token![,]>>()?;
        Ok(Self { state })
    }
}

// === impl Handler ===

impl<'a> Handler<'a> {
    fn new(function: &'a ItemFn, options: Options) -> Result<Self> {
        let signature = &function.sig;
        if signature.asyncness.is_none() {
            let what = "a handler is an async function: write `async fn`";
            return Err(Error::new(signature.fn_token.span, what));
        }
        if let Some(parameter) = signature.generics.params.first() {
            let what = "debug_handler checks no function with type parameters: which type would it \
                        be? Take the attribute off, or name the types";
            return Err(Error::new_spanned(parameter, what));
        }
        let mut arguments = Vec::new();
        for (number, input) in signature.inputs.iter().enumerate() {
            if number == ARGUMENTS_MAX {
                let what = format!(
                    "a handler has at most {ARGUMENTS_MAX} arguments: take parts of the state \
                     together, or Delivery for all that is known of a message"
                );
                return Err(Error::new_spanned(input, what));
            }
            match input {
                FnArg::Typed(argument) => arguments.push(&*argument.ty),
                FnArg::Receiver(receiver) => {
                    let what = "a handler is a free function: what it needs comes by State<T>";
                    return Err(Error::new_spanned(receiver, what));
                }
            }
        }
        let batch = arguments.last().and_then(|last| inside(last, "Batch"));
        let before = arguments.len().saturating_sub(1);
        if let Some(early) = arguments[..before]
            .iter()
            .find(|argument| inside(argument, "Batch").is_some())
        {
            let what = "a handler has one Batch, and it is the last argument";
            return Err(Error::new_spanned(early, what));
        }
        let state = match options.state {
            Some(state) => state,
            None => state_of(&arguments)?,
        };
        Ok(Self {
            function,
            arguments,
            state,
            batch,
        })
    }

    fn checks(&self) -> TokenStream {
        let arguments = self.arguments();
        let returned = self.returned();
        let future = self.future();
        quote! {
            const _: () = {
                #(#arguments)*
                #returned
                #future
            };
        }
    }

    fn arguments(&self) -> Vec<TokenStream> {
        let state = &self.state;
        let of_message = quote!(::kratos_broker::FromDelivery<#state>);
        let of_batch = quote!(::kratos_broker::FromBatch<#state>);
        let last = self.arguments.len().saturating_sub(1);
        let checks = self.arguments.iter().enumerate().map(|(number, argument)| {
            let (argument, bound) = match self.batch {
                Some(inside) if number == last => (inside, &of_message),
                Some(_) => (*argument, &of_batch),
                None => (*argument, &of_message),
            };
            let check = format_ident!("argument_{number}");
            is(&check, argument, bound)
        });
        checks.collect()
    }

    fn returned(&self) -> Option<TokenStream> {
        let ReturnType::Type(_, returned) = &self.function.sig.output else {
            return None;
        };
        if matches!(**returned, Type::ImplTrait(_)) {
            return None;
        }
        let bound = match self.batch {
            Some(_) => quote!(::kratos_broker::BatchReturn),
            None => quote!(::kratos_broker::HandlerReturn),
        };
        Some(is(&format_ident!("returned"), returned, &bound))
    }

    fn future(&self) -> TokenStream {
        let name = &self.function.sig.ident;
        let types = &self.arguments;
        let values: Vec<_> = (0..types.len())
            .map(|number| format_ident!("value_{number}"))
            .collect();
        let call = quote_spanned!(name.span()=> check(#name(#(#values),*)));
        quote! {
            #[allow(warnings)]
            fn future(#(#values: #types),*) {
                fn check<F: ::core::marker::Send>(_: F) {}
                #call
            }
        }
    }
}

/// A function that compiles if `what` satisfies `bound`.
fn is(name: &Ident, what: &Type, bound: &TokenStream) -> TokenStream {
    let call = quote_spanned!(what.span()=> check::<#what>());
    quote! {
        #[allow(warnings)]
        fn #name() {
            fn check<T: #bound>() {}
            #call
        }
    }
}

/// The `T` of `name<T>`.
fn inside<'a>(written: &'a Type, name: &str) -> Option<&'a Type> {
    let Type::Path(path) = written else {
        return None;
    };
    let last = path.path.segments.last()?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    match arguments.args.first()? {
        GenericArgument::Type(inside) if last.ident == name => Some(inside),
        _ => None,
    }
}

/// The state that `State<T>` takes; none takes `()`.
fn state_of(arguments: &[&Type]) -> Result<Type> {
    let mut states = arguments.iter().filter_map(|a| inside(a, "State"));
    let Some(first) = states.next() else {
        return Ok(syn::parse_quote!(()));
    };
    let written = |state: &Type| state.to_token_stream().to_string();
    if let Some(other) = states.find(|state| written(state) != written(first)) {
        let what = "takes several parts of the state: name the whole, \
                    #[debug_handler(state = <type>)]";
        return Err(Error::new_spanned(other, what));
    }
    Ok(first.clone())
}
