#include "text/scripts.h"

#include "text/regex.h"

#include <string_view>

namespace finetune {

namespace {

// Unicode's scripts (PropertyValueAliases.txt) but Han, Hiragana, Katakana, Common and Unknown; PCRE2 has no other way
// to tell whether two characters are of one script.
constexpr std::string_view kScripts[] = {
    "Latin", "Greek", "Cyrillic", "Arabic", "Hebrew", "Hangul", "Thai", "Devanagari", "Inherited", "Adlam",
    "Caucasian_Albanian", "Ahom", "Imperial_Aramaic", "Armenian", "Avestan", "Balinese", "Bamum", "Bassa_Vah",
    "Batak", "Bengali", "Bhaiksuki", "Bopomofo", "Brahmi", "Braille", "Buginese", "Buhid", "Chakma",
    "Canadian_Aboriginal", "Carian", "Cham", "Cherokee", "Chorasmian", "Coptic", "Cypro_Minoan", "Cypriot",
    "Dives_Akuru", "Dogra", "Deseret", "Duployan", "Egyptian_Hieroglyphs", "Elbasan", "Elymaic", "Ethiopic",
    "Georgian", "Glagolitic", "Gunjala_Gondi", "Masaram_Gondi", "Gothic", "Grantha", "Gujarati", "Gurmukhi",
    "Hanunoo", "Hatran", "Anatolian_Hieroglyphs", "Pahawh_Hmong", "Nyiakeng_Puachue_Hmong", "Old_Hungarian",
    "Old_Italic", "Javanese", "Kayah_Li", "Kharoshthi", "Khmer", "Khojki", "Khitan_Small_Script", "Kannada",
    "Kaithi", "Tai_Tham", "Lao", "Lepcha", "Limbu", "Linear_A", "Linear_B", "Lisu", "Lycian", "Lydian",
    "Mahajani", "Makasar", "Mandaic", "Manichaean", "Marchen", "Medefaidrin", "Mende_Kikakui",
    "Meroitic_Cursive", "Meroitic_Hieroglyphs", "Malayalam", "Modi", "Mongolian", "Mro", "Meetei_Mayek",
    "Multani", "Myanmar", "Nandinagari", "Old_North_Arabian", "Nabataean", "Newa", "Nko", "Nushu", "Ogham",
    "Ol_Chiki", "Old_Turkic", "Oriya", "Osage", "Osmanya", "Old_Uyghur", "Palmyrene", "Pau_Cin_Hau",
    "Old_Permic", "Phags_Pa", "Inscriptional_Pahlavi", "Psalter_Pahlavi", "Phoenician", "Miao",
    "Inscriptional_Parthian", "Rejang", "Hanifi_Rohingya", "Runic", "Samaritan", "Old_South_Arabian",
    "Saurashtra", "SignWriting", "Shavian", "Sharada", "Siddham", "Khudawadi", "Sinhala", "Sogdian",
    "Old_Sogdian", "Sora_Sompeng", "Soyombo", "Sundanese", "Syloti_Nagri", "Syriac", "Tagbanwa", "Takri",
    "Tai_Le", "New_Tai_Lue", "Tamil", "Tangut", "Tai_Viet", "Telugu", "Tifinagh", "Tagalog", "Thaana",
    "Tibetan", "Tirhuta", "Tangsa", "Toto", "Ugaritic", "Vai", "Vithkuqi", "Warang_Citi", "Wancho",
    "Old_Persian", "Cuneiform", "Yezidi", "Yi", "Zanabazar_Square"};

/// A run of characters of the set, with spaces and unassigned characters inside of it.
std::string run_of(const std::string& set) {
  return set + "+(?:[ \\p{Unknown}]+" + set + "+)*";
}

}  // namespace

std::string script_pattern() {
  std::string pattern = run_of("[\\p{Han}\\p{Hiragana}\\p{Katakana}\\x{30FC}]");
  pattern += "|" + run_of("[\\p{Common}&&[^ \\x{30FC}]]");
  for (const std::string_view script : kScripts) {
    const std::string set = "\\p{" + std::string(script) + "}";
    if (Regex::is_property(set)) pattern += "|" + run_of(set);
  }
  return pattern;
}

}  // namespace finetune
