#include "tests/sim/script.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/bridge.h"
#include "tests/sim/dice.h"

namespace flux::sim {
namespace {

constexpr char kSource[] = "simulated";

// Fragments that go on as themselves do so in bodies, too: a tree that must not grow for ever.
constexpr int64_t kPathDotsMax = 5;
constexpr uint64_t kRoundsMax = 40;  // in one place

std::string Numbers(uint64_t count, Dice& dice) {
  std::string out = "[";
  for (uint64_t i = 0; i < count; ++i) absl::StrAppend(&out, i == 0 ? "" : ",", dice.Below(5));
  return out + "]";
}

v1::Payload ValueOf(const TaskScript& script, Dice& dice) {
  const std::string filler(dice.Chance(script.big) ? 300 + dice.Below(1500) : 0, 'x');
  switch (script.shape) {
    case Shape::kNumber:
      return Json(absl::StrCat(dice.Below(5)));
    case Shape::kBool:
      return Json(dice.OneIn(2) ? "true" : "false");
    case Shape::kArray:
      return Json(Numbers(dice.Chance(script.wide) ? 20 + dice.Below(40) : dice.Below(4), dice));
    case Shape::kObject:
      return Json(absl::StrCat("{\"a\":", dice.Below(5), ",\"b\":", Numbers(dice.Below(3), dice),
                               ",\"c\":\"", filler, "\"}"));
    case Shape::kText:
      return Json(absl::StrCat("\"", absl::Hex(dice.Next()), filler, "\""));
    case Shape::kList: {
      std::vector<v1::Payload> items;
      for (uint64_t i = dice.Below(4); i > 0; --i) {
        if (dice.OneIn(12)) {
          v1::Payload none;
          none.set_encoding(v1::ENCODING_NONE);
          items.push_back(std::move(none));
        } else {
          items.push_back(Json(dice.OneIn(2) ? absl::StrCat(dice.Below(5)) : "[1,2]"));
        }
      }
      return ListOf(items);
    }
    case Shape::kOpaque: {
      v1::Payload payload;
      payload.set_data(absl::StrCat("opaque ", absl::Hex(dice.Next()), filler));
      payload.set_encoding(v1::ENCODING_PROTOBUF);
      payload.set_content_type("a.Message");
      (*payload.mutable_metadata())["key"] = "v";
      return payload;
    }
    case Shape::kPage:  // needs its cursor: PageOf
    case Shape::kNone:
      break;
  }
  v1::Payload none;
  none.set_encoding(v1::ENCODING_NONE);
  return none;
}

// The page at a cursor, a number. Cursors grow, so that pages end.
v1::Payload PageOf(const std::vector<std::string>& inputs, Dice& dice) {
  uint64_t cursor = 0;
  if (inputs.empty() || !absl::SimpleAtoi(inputs[0], &cursor)) cursor = 0;
  const bool last = cursor >= 3 || dice.OneIn(3);
  return Json(absl::StrCat("{\"items\":", Numbers(dice.Below(4), dice),
                           ",\"next\":", last ? "null" : absl::StrCat(cursor + 1), "}"));
}

v1::Failure FailureOf(Dice& dice, bool final) {
  v1::Failure failure;
  failure.set_type(dice.OneIn(2) ? "mine" : "other");
  failure.set_message(absl::StrCat("scripted ", dice.Below(1000)));
  failure.set_non_retriable(final);
  failure.set_source(kSource);
  return failure;
}

}  // namespace

Answer AnswerOf(const TaskScript& script, uint64_t seed, std::string_view path,
                const std::vector<std::string>& inputs) {
  uint64_t hash = Hash(path, Mix(seed));
  for (const std::string& input : inputs) hash = Hash(input, hash);
  Dice dice(hash);
  Answer answer;
  answer.duration_ms = dice.Between(0, script.duration_ms_max);
  answer.transient = FailureOf(dice, /*final=*/false);
  if (dice.Chance(script.exhausts)) {
    answer.failing_attempts = Answer::kAlways;
    answer.end = Answer::End::kFailure;
    answer.failure = answer.transient;
    return answer;
  }
  uint64_t rounds = 0;
  if (script.counts && (inputs.empty() || !absl::SimpleAtoi(inputs.back(), &rounds))) rounds = 0;
  answer.failing_attempts = static_cast<uint32_t>(dice.Below(script.transient_max + 1));
  if (dice.Chance(script.fails)) {
    answer.end = Answer::End::kFailure;
    answer.failure = FailureOf(dice, /*final=*/true);
  } else if (dice.Chance(script.skips)) {
    answer.end = Answer::End::kSkip;
  } else if (script.fragment != nullptr && dice.Chance(script.continues) &&
             std::count(path.begin(), path.end(), '.') <= kPathDotsMax && rounds < kRoundsMax) {
    answer.end = Answer::End::kContinue;
    answer.fragment = script.fragment;
    answer.inputs = {LiteralOf(Shape::kArray, dice.Next()), Json(ToStd(absl::StrCat(rounds + 1)))};
  } else if (script.shape == Shape::kPage) {
    answer.value = PageOf(inputs, dice);
  } else {
    answer.value = ValueOf(script, dice);
  }
  return answer;
}

std::map<std::string, std::string> LabelsOf(const TaskScript& script, std::string_view path) {
  if (!script.labels) return {};
  const std::string value(absl::StrCat(absl::Hex(Hash(path))));
  // One that it alone sets, and one that others set, too, and take away.
  return {{absl::StrCat("of_", ToAbsl(NameOf(path))), value},
          {"shared", Hash(path) % 3 == 0 ? "" : value.substr(0, 1)}};
}

std::map<std::string, std::string> StepLabelsOf(const TaskScript& script, std::string_view path) {
  if (!script.labels || Hash(path) % 2 == 0) return {};
  return {{"at", std::string(absl::StrCat(absl::Hex(Hash(path))))}};
}

std::string_view NameOf(std::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

v1::Payload Json(std::string_view text) {
  v1::Payload payload;
  payload.set_encoding(v1::ENCODING_JSON);
  payload.set_data(std::string(text));
  return payload;
}

v1::Payload ListOf(const std::vector<v1::Payload>& items) {
  v1::PayloadList list;
  for (const v1::Payload& item : items) *list.add_items() = item;
  v1::Payload payload;
  payload.set_encoding(v1::ENCODING_LIST);
  payload.set_data(list.SerializeAsString());
  return payload;
}

std::string TextOf(const v1::Payload& payload) {
  switch (payload.encoding()) {
    case v1::ENCODING_NONE:
      return "nothing";
    case v1::ENCODING_JSON:
      return payload.data();
    case v1::ENCODING_LIST: {
      v1::PayloadList list;
      if (!list.ParseFromString(payload.data())) return "a malformed list";
      std::string text = "list(";
      for (int i = 0; i < list.items_size(); ++i) {
        absl::StrAppend(&text, i == 0 ? "" : ", ", TextOf(list.items(i)));
      }
      return text + ")";
    }
    default:
      break;
  }
  std::string text = absl::StrCat(v1::Encoding_Name(payload.encoding()), " ",
                                  payload.content_type(), " ", absl::CHexEscape(payload.data()));
  // A map of one entry at most, so that its order does not matter.
  for (const auto& [key, value] : payload.metadata()) {
    absl::StrAppend(&text, " ", key, "=", value);
  }
  return text;
}

std::string TextOf(const v1::Failure& failure) {
  return absl::StrCat(failure.type(), failure.non_retriable() ? " (final)" : "", " from ",
                      failure.source(), ": ", failure.message());
}

v1::Payload LiteralOf(Shape shape, uint64_t bits) {
  Dice dice(bits);
  return ValueOf(TaskScript{.shape = shape}, dice);
}

}  // namespace flux::sim
