// flux::Value<T>: a handle to something that will exist once the workflow runs.
#ifndef FLUX_VALUE_H_
#define FLUX_VALUE_H_

#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include "flux/codec.h"
#include "flux/internal/tracer.h"
#include "flux/struct.h"

namespace flux {

// The type of what never has a value: Fail and Skip. It fits any branch.
struct Never {};

namespace internal {
template <typename T>
inline constexpr bool kNever = false;
}  // namespace internal

// A typed handle to the output of a step or a parameter of the workflow. Made by flux::Graph while
// a workflow is traced, meaningless afterwards. Cheap to copy. There is nothing in it to look at:
// give it to other steps, and use Graph::If, Switch, Map and Loop where ordinary code would use if,
// switch and for.
template <typename T>
class Value {
 public:
  using Type = T;

  // For flux::Graph.
  explicit Value(internal::ValueRef ref) : ref_(std::move(ref)) {}
  const internal::ValueRef& ref() const { return ref_; }

  // A member of a FLUX_STRUCT value: Field(&Page::number). Costs no step.
  template <typename Class, typename Member>
  Value<Member> Field(Member Class::*member,
                      internal::Location at = internal::Location::Current()) const {
    static_assert(internal::Struct<T> && !internal::UserCodec<T>,
                  "flux: Field() reads a member of a FLUX_STRUCT value that travels as JSON; say "
                  "FLUX_STRUCT(Type, members...) of this type, or read the member in a task");
    internal::ValueRef part = ref_;
    if constexpr (internal::Struct<T> && !internal::UserCodec<T>) {
      const std::string_view name = internal::MemberName(member);
      if (name.empty()) {
        internal::Refuse(
            ref_.tracer, at,
            "Field() of a member that is not listed in its type's FLUX_STRUCT; add it there");
      }
      part.pointer += "/";
      part.pointer += name;  // an identifier: needs no escape
    }
    return Value<Member>(std::move(part));
  }

  template <typename Dependent = T>
  explicit operator bool() const {
    static_assert(internal::kNever<Dependent>,
                  "flux: a Value is known only while the workflow runs, not while it is traced; "
                  "use g.If or g.Switch "
                  "instead of if, &&, || and !");
    return false;
  }

 private:
  internal::ValueRef ref_;
};

namespace internal {

struct NotAValue {};

template <typename T>
std::type_identity<T> ProbeValue(const Value<T>*);
std::type_identity<NotAValue> ProbeValue(...);

// T for a Value<T> and for the steps derived from it; NotAValue for everything else.
template <typename A>
using ValueTypeOf =
    typename decltype(ProbeValue(std::declval<const std::remove_reference_t<A>*>()))::type;
template <typename A>
inline constexpr bool kIsValue = !std::is_same_v<ValueTypeOf<A>, NotAValue>;

enum class Fit { kFits, kWrongValue, kWrongLiteral, kPointerToBool, kFractionToInteger };

// How an argument of type A suits a parameter of type P.
template <typename P, typename A>
constexpr Fit FitOf() {
  using Literal = std::decay_t<A>;
  // An optional parameter takes what its element takes.
  using Target =
      std::conditional_t<OptionalTraits<Literal>::value, P, typename OptionalTraits<P>::Element>;
  if constexpr (kIsValue<A>) {
    using V = ValueTypeOf<A>;
    return std::is_same_v<V, P> || std::is_same_v<V, typename OptionalTraits<P>::Element>
               ? Fit::kFits
               : Fit::kWrongValue;
  } else if constexpr (std::is_same_v<Literal, std::nullopt_t>) {
    return OptionalTraits<P>::value ? Fit::kFits : Fit::kWrongLiteral;
  } else if constexpr (std::is_same_v<Target, bool>) {
    if (std::is_same_v<Literal, bool>) return Fit::kFits;
    return std::is_pointer_v<Literal> || std::is_null_pointer_v<Literal> ? Fit::kPointerToBool
                                                                         : Fit::kWrongLiteral;
  } else if constexpr (kIsInteger<Target>) {
    if (kIsInteger<Literal>) return Fit::kFits;
    return std::is_floating_point_v<Literal> ? Fit::kFractionToInteger : Fit::kWrongLiteral;
  } else if constexpr (std::is_floating_point_v<Target>) {
    return kIsInteger<Literal> || std::is_floating_point_v<Literal> ? Fit::kFits
                                                                    : Fit::kWrongLiteral;
  } else {
    return std::is_convertible_v<const std::remove_reference_t<A>&, P> ? Fit::kFits
                                                                       : Fit::kWrongLiteral;
  }
}

// One sentence for what is wrong, and only one.
template <typename P, typename A>
constexpr bool CheckFit() {
  constexpr Fit kFit = FitOf<P, A>();
  static_assert(kFit != Fit::kWrongValue,
                "flux: this Value has another type than the parameter; a parameter of type P takes "
                "a Value<P> "
                "(std::optional<P> also takes a Value<P>), exactly");
  static_assert(kFit != Fit::kWrongLiteral,
                "flux: this literal does not convert to the parameter's type; give a Value of that "
                "type or a literal "
                "of it");
  static_assert(kFit != Fit::kPointerToBool,
                "flux: a pointer (or a string literal) is given where a bool is expected; it would "
                "always be true");
  static_assert(kFit != Fit::kFractionToInteger,
                "flux: a floating-point literal is given where an integer is expected; it would "
                "lose its fraction");
  return kFit == Fit::kFits;
}

absl::Status DoesNotFit(std::string_view number, std::string_view type);

// The literal as a P, or why its number does not fit.
template <typename P, typename A>
absl::StatusOr<P> ToLiteral(const A& literal) {
  if constexpr (OptionalTraits<P>::value && !OptionalTraits<std::decay_t<A>>::value &&
                (std::is_arithmetic_v<std::decay_t<A>>)) {
    auto element = ToLiteral<typename P::value_type>(literal);
    if (!element.ok()) return element.status();
    return P(*std::move(element));
  } else if constexpr (kIsInteger<P>) {
    if (!std::in_range<P>(literal)) return DoesNotFit(std::to_string(literal), TypeName<P>());
    return static_cast<P>(literal);
  } else if constexpr (std::is_floating_point_v<P>) {
    const P value = static_cast<P>(literal);
    const bool exact = std::is_floating_point_v<A>
                           ? (value - value == 0) == (literal - literal == 0)
                           : static_cast<long double>(value) == static_cast<long double>(literal);
    if (!exact) return DoesNotFit(std::to_string(literal), TypeName<P>());
    return value;
  } else {
    return P(literal);
  }
}

// The input that an argument of type A makes for a parameter of type P.
template <typename P, typename A>
Argument MakeArgument(const A& argument) {
  Argument made;
  made.optional = OptionalTraits<P>::value;
  if constexpr (CheckFit<P, A>()) {
    if constexpr (kIsValue<A>) {
      made.value = argument.ref();
    } else if constexpr (CheckPayloadType<P>()) {
      absl::StatusOr<P> literal = ToLiteral<P>(argument);
      absl::StatusOr<Payload> payload =
          literal.ok() ? Encode(*literal) : absl::StatusOr<Payload>(literal.status());
      if (payload.ok()) {
        made.literal = *std::move(payload);
      } else {
        made.status = payload.status();
      }
    }
  }
  return made;
}

// The type a body's return value stands for.
template <typename X>
struct ResultTypeOf {
  using type =
      std::conditional_t<kIsValue<X>, ValueTypeOf<X>,
                         std::conditional_t<std::is_convertible_v<std::decay_t<X>, const char*>,
                                            std::string, std::decay_t<X>>>;
};
template <>
struct ResultTypeOf<void> {
  using type = Unit;
};

// The result input of a body whose value is to be a T.
template <typename T, typename X>
Argument ResultArgument(const X& result) {
  if constexpr (std::is_same_v<ValueTypeOf<X>, Never>) {
    Argument made;
    made.value = result.ref();
    return made;
  } else {
    return MakeArgument<T>(result);
  }
}

}  // namespace internal
}  // namespace flux

#endif  // FLUX_VALUE_H_
