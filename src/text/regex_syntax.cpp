#include "text/regex_syntax.h"

#include "finetune/base/error.h"
#include "text/new_characters.h"
#include "text/utf8.h"

#include <map>
#include <optional>
#include <vector>

namespace finetune {

namespace {

constexpr const char* kSpace = R"(\t-\r\x{85}\p{Z})";
constexpr const char* kHex = "0-9a-fA-F";
constexpr int kMaxDepth = 100;

/// The inside of a class for a general category of one letter, or for decimal digits.
std::string category(const std::string& name) {
  const char* fresh = name == "L"    ? kNewLetters
                      : name == "M"  ? kNewMarks
                      : name == "N"  ? kNewNumbers
                      : name == "Nd" ? kNewDecimalDigits
                      : name == "P"  ? kNewPunctuation
                      : name == "S"  ? kNewSymbols
                                     : "";
  return R"(\p{)" + name + "}" + fresh;
}

/// Word characters: Alphabetic, marks, decimal digits and connectors; of other numbers those of
/// Latin-1 only.
const std::string& word() {
  static const std::string set = category("L") + category("M") + category("Nd") +
                                 R"(\p{Nl}\p{Pc}\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE}\x{24B6}-\x{24E9})"
                                 R"(\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189})";
  return set;
}

/// What a set holds: the inside of one PCRE2 class, and alternatives that no class can hold.
struct Set {
  std::string items;
  std::vector<std::string> others;

  std::string pattern() const {
    if (others.empty()) return "[" + items + "]";
    std::string result = items.empty() ? "(?:" : "(?:[" + items + "]|";
    for (std::size_t i = 0; i < others.size(); ++i) result += (i > 0 ? "|" : "") + others[i];
    return result + ")";
  }
  void add(const Set& set, bool negated) {
    if (negated) {
      others.push_back(set.others.empty() ? "[^" + set.items + "]"
                                          : "(?!" + set.pattern() + ")(?s:.)");
      return;
    }
    items += set.items;
    others.insert(others.end(), set.others.begin(), set.others.end());
  }
};

/// Names of general categories and of POSIX sets, without case, spaces and underscores.
const std::map<std::string, std::string>& long_names() {
  static const std::map<std::string, std::string> names = {
      {"letter", category("L")},
      {"uppercaseletter", R"(\p{Lu})"},
      {"lowercaseletter", R"(\p{Ll})"},
      {"titlecaseletter", R"(\p{Lt})"},
      {"modifierletter", R"(\p{Lm})"},
      {"otherletter", R"(\p{Lo})"},
      {"casedletter", R"(\p{Lu}\p{Ll}\p{Lt})"},
      {"lc", R"(\p{Lu}\p{Ll}\p{Lt})"},
      {"mark", category("M")},
      {"nonspacingmark", R"(\p{Mn})"},
      {"spacingmark", R"(\p{Mc})"},
      {"enclosingmark", R"(\p{Me})"},
      {"number", category("N")},
      {"decimalnumber", category("Nd")},
      {"letternumber", R"(\p{Nl})"},
      {"othernumber", R"(\p{No})"},
      {"punctuation", category("P")},
      {"connectorpunctuation", R"(\p{Pc})"},
      {"dashpunctuation", R"(\p{Pd})"},
      {"openpunctuation", R"(\p{Ps})"},
      {"closepunctuation", R"(\p{Pe})"},
      {"initialpunctuation", R"(\p{Pi})"},
      {"finalpunctuation", R"(\p{Pf})"},
      {"otherpunctuation", R"(\p{Po})"},
      {"symbol", category("S")},
      {"mathsymbol", R"(\p{Sm})"},
      {"currencysymbol", R"(\p{Sc})"},
      {"modifiersymbol", R"(\p{Sk})"},
      {"othersymbol", R"(\p{So})"},
      {"separator", R"(\p{Z})"},
      {"spaceseparator", R"(\p{Zs})"},
      {"lineseparator", R"(\p{Zl})"},
      {"paragraphseparator", R"(\p{Zp})"},
      {"other", R"(\p{C})"},
      {"control", R"(\p{Cc})"},
      {"format", R"(\p{Cf})"},
      {"surrogate", R"(\p{Cs})"},
      {"privateuse", R"(\p{Co})"},
      {"unassigned", R"(\p{Cn})"},
      {"alpha", R"(\p{Alphabetic})"},
      {"digit", category("Nd")},
      {"space", kSpace},
      {"whitespace", kSpace},
      {"upper", R"(\p{Uppercase})"},
      {"lower", R"(\p{Lowercase})"},
      {"alnum", R"(\p{Alphabetic})" + category("Nd")},
      {"punct", category("P") + category("S")},
      {"cntrl", R"(\p{Cc})"},
      {"xdigit", kHex},
      {"word", word()},
      {"blank", R"(\t\p{Zs})"},
      {"ascii", R"(\x00-\x7F)"},
      {"any", R"(\x{0}-\x{10FFFF})"}};
  return names;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

class Translator {
 public:
  Translator(std::string_view pattern, const std::function<bool(const std::string&)>& is_known)
      : in_(pattern), is_known_(is_known) {}

  std::string run() {
    while (at_ < in_.size()) step();
    return out_;
  }

 private:
  char peek(std::size_t ahead = 0) const {
    return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0';
  }

  void atom(const std::string& text) {
    atom_ = out_.size();
    out_ += text;
  }

  void step() {
    const char c = peek();
    if (c == '\\') return escape();
    if (c == '[') return atom(set(0));
    if (c == '(') return group();
    if (c == ')') {
      out_ += c;
      ++at_;
      if (!groups_.empty()) {
        atom_ = groups_.back();
        groups_.pop_back();
      }
      return;
    }
    if (c == '{' && counted()) return;
    if (c == '*' || c == '+' || c == '?' || c == '|' || c == '^') {
      out_ += c;
      ++at_;
      return;
    }
    const std::size_t size = code_point_at(in_, at_).size;
    atom(std::string(in_.substr(at_, size)));
    at_ += size;
  }

  void group() {
    groups_.push_back(out_.size());
    out_ += in_[at_++];
    if (peek() != '?') return;
    std::size_t end = at_ + 1;
    while (end < in_.size() &&
           (in_[end] == 'i' || in_[end] == 'm' || in_[end] == 'x' || in_[end] == '-'))
      ++end;
    if (end == at_ + 1 || end >= in_.size() || (in_[end] != ':' && in_[end] != ')')) return;
    out_ += in_[at_++];
    for (; at_ < end; ++at_) out_ += in_[at_] == 'm' ? 's' : in_[at_];
  }

  /// `{n}`, `{n,}`, `{,m}`, `{n,m}`; anything else is a literal brace.
  bool counted() {
    std::size_t end = at_ + 1;
    while (end < in_.size() && (is_digit(in_[end]) || in_[end] == ',')) ++end;
    if (end >= in_.size() || in_[end] != '}' || end == at_ + 1) return false;
    std::string count(in_.substr(at_, end + 1 - at_));
    if (count[1] == ',') count.insert(1, "0");
    out_ += count;
    at_ = end + 1;
    if (peek() == '+') {
      out_.insert(atom_, "(?:");
      out_ += ")";
    }
    return true;
  }

  void escape() {
    Set found;
    bool negated = false;
    if (set_escape(found, negated)) {
      Set result;
      result.add(found, negated);
      return atom(result.items.empty() && result.others.size() == 1 ? "(?:" + result.others[0] + ")"
                                                                    : result.pattern());
    }
    const char c = peek(1);
    const std::string letters = "[" + word() + "]";
    if (c == 'b' || c == 'B') {
      at_ += 2;
      const bool edge = c == 'b';
      return atom("(?:(?<=" + letters + ")(?" + (edge ? '!' : '=') + letters + ")|(?<!" + letters +
                  ")(?" + (edge ? '=' : '!') + letters + "))");
    }
    atom(literal_escape());
  }

  /// An escape that stands for one character, or one that both syntaxes share.
  std::string literal_escape() {
    const char c = peek(1);
    at_ += 2;
    if (c == 'v') return R"(\x0B)";
    if (c == 'u' && at_ + 4 <= in_.size()) {
      at_ += 4;
      return R"(\x{)" + std::string(in_.substr(at_ - 4, 4)) + "}";
    }
    std::string result = "\\";
    if (at_ > in_.size()) return result;
    const std::size_t size = code_point_at(in_, at_ - 1).size;
    result += in_.substr(at_ - 1, size);
    at_ += size - 1;
    if (c == 'x' && peek() == '{') {
      while (at_ < in_.size() && in_[at_] != '}') result += in_[at_++];
    }
    return result;
  }

  /// An escape that stands for a set of characters.
  bool set_escape(Set& found, bool& negated) {
    const char c = peek(1);
    switch (lower(c)) {
      case 's':
        found.items = kSpace;
        break;
      case 'w':
        found.items = word();
        break;
      case 'd':
        found.items = category("Nd");
        break;
      case 'h':
        found.items = kHex;
        break;
      case 'p':
        return property(found, negated);
      default:
        return false;
    }
    negated = c != lower(c);
    at_ += 2;
    return true;
  }

  bool property(Set& found, bool& negated) {
    const std::size_t close = in_.find('}', at_);
    if (peek(2) != '{' || close == std::string_view::npos) return false;
    std::string_view name = in_.substr(at_ + 3, close - at_ - 3);
    negated = peek(1) == 'P';
    if (name.starts_with('^')) {
      name.remove_prefix(1);
      negated = !negated;
    }
    at_ = close + 1;
    named(name, found);
    return true;
  }

  void named(std::string_view name, Set& found) {
    std::string plain;
    for (const char c : name) {
      if (c != ' ' && c != '_' && c != '-') plain += lower(c);
    }
    const auto known = long_names().find(plain);
    if (known != long_names().end()) {
      found.items = known->second;
    } else if (plain.size() <= 2 && !plain.empty()) {
      plain[0] = static_cast<char>(plain[0] - 32);
      found.items = category(plain);
    } else if (plain == "graph" || plain == "print") {
      const std::string space =
          plain == "graph" ? std::string(kSpace) : R"(\t-\r\x{85}\p{Zl}\p{Zp})";
      found.others.push_back("[^" + space + R"(\p{Cc}\p{Cn}\p{Cs}])");
    } else {
      // PCRE2 takes a bare script name for Script_Extensions, Oniguruma for Script.
      const std::string script = R"(\p{sc:)" + std::string(name) + "}";
      found.items = is_known_(script) ? script : R"(\p{)" + std::string(name) + "}";
      if (plain == "han") found.items += kNewHan;
    }
  }

  /// `[...]` at the place of reading.
  std::string set(int depth) {
    const auto [content, negated] = set_content(depth);
    if (!negated) return content.pattern();
    Set result;
    result.add(content, true);
    return result.others[0].starts_with("[") ? result.others[0] : "(?:" + result.others[0] + ")";
  }

  std::pair<Set, bool> set_content(int depth) {
    if (depth > kMaxDepth)
      fail(ErrorKind::model, "sets nested more than {} deep in a regular expression", kMaxDepth);
    ++at_;
    const bool negated = peek() == '^';
    if (negated) ++at_;
    Set content;
    std::optional<std::string> left;  // of &&
    bool first = true;
    while (at_ < in_.size() && (peek() != ']' || first)) {
      first = false;
      if (peek() == '&' && peek(1) == '&') {
        at_ += 2;
        left = (left ? "(?=" + *left + ")" : std::string()) + content.pattern();
        content = Set();
      } else {
        set_item(content, depth);
      }
    }
    if (at_ < in_.size()) ++at_;
    if (left) {
      Set both;
      both.others.push_back("(?=" + *left + ")" + content.pattern());
      content = both;
    }
    return {content, negated};
  }

  void set_item(Set& content, int depth) {
    if (peek() == '[' && peek(1) == ':') {
      const std::size_t close = in_.find(":]", at_);
      if (close != std::string_view::npos) {
        std::string_view name = in_.substr(at_ + 2, close - at_ - 2);
        const bool negated = name.starts_with('^');
        if (negated) name.remove_prefix(1);
        Set found;
        named(name, found);
        content.add(found, negated);
        at_ = close + 2;
        return;
      }
    }
    if (peek() == '[') {
      const auto [inner, negated] = set_content(depth + 1);
      content.add(inner, negated);
      return;
    }
    if (peek() == '\\') {
      Set found;
      bool negated = false;
      if (set_escape(found, negated)) {
        content.add(found, negated);
      } else {
        content.items += literal_escape();
      }
      return;
    }
    const std::size_t size = code_point_at(in_, at_).size;
    content.items += in_.substr(at_, size);
    at_ += size;
  }

  std::string_view in_;
  const std::function<bool(const std::string&)>& is_known_;
  std::size_t at_ = 0, atom_ = 0;  ///< place of reading; where the last atom begins in out_
  std::string out_;
  std::vector<std::size_t> groups_;  ///< where the open groups begin in out_
};

}  // namespace

std::string pcre2_syntax(std::string_view pattern,
                         const std::function<bool(const std::string&)>& is_known) {
  return Translator(pattern, is_known).run();
}

}  // namespace finetune
