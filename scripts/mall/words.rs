//! Korean words for names, addresses, goods and letters.

use crate::dice::Dice;

const FAMILY_NAMES: &[&str] =
    &["김", "이", "박", "최", "정", "강", "조", "윤", "장", "임", "한", "오", "서", "신", "권", "황"];
const GIVEN_NAMES: &[&str] = &[
    "민준", "서연", "도윤", "하은", "시우", "지우", "주원", "서윤", "예준", "지민", "하준", "수아", "건우", "채원",
    "현우", "유진", "성호", "미경", "영숙", "동현",
];
const CITIES: &[&str] = &[
    "서울특별시 강남구",
    "서울특별시 마포구",
    "부산광역시 해운대구",
    "대구광역시 수성구",
    "인천광역시 연수구",
    "광주광역시 서구",
    "대전광역시 유성구",
    "경기도 성남시 분당구",
    "경기도 수원시 영통구",
    "강원도 강릉시",
    "전라북도 전주시 완산구",
    "제주특별자치도 제주시",
];
const STREETS: &[&str] = &[
    "테헤란로",
    "월드컵로",
    "센텀중앙로",
    "동대구로",
    "송도과학로",
    "상무대로",
    "대학로",
    "판교역로",
    "중앙로",
    "한라대학로",
];
const QUALITIES: &[&str] = &[
    "프리미엄",
    "수제",
    "유기농",
    "초경량",
    "국내산",
    "한정판",
    "가벼운",
    "따뜻한",
    "시원한",
    "오래가는",
    "새로 나온",
    "2+1",
];
const GOODS: &[&str] = &[
    "운동화",
    "면 티셔츠",
    "무선 이어폰",
    "텀블러",
    "김치 세트",
    "한우 선물세트",
    "노트북 가방",
    "캠핑 의자",
    "유아용 물티슈",
    "전기 주전자",
    "샴푸",
    "청바지",
    "등산 양말",
    "사과 5kg",
    "보조 배터리",
    "침구 세트",
    "도자기 그릇",
    "한지 공책",
    "향초",
    "강아지 사료",
];
const SENTENCES: &[&str] = &[
    "배송이 빨라서 좋았어요.",
    "포장이 조금 찢어졌지만 물건은 괜찮습니다.",
    "부재 시 경비실에 맡겨 주세요.",
    "색상이 사진과 조금 다릅니다.",
    "재구매 의사 있습니다!",
    "선물용이니 영수증은 빼 주세요.",
    "문 앞에 놓고 벨을 눌러 주세요.",
    "가격 대비 만족합니다 👍",
    "세탁 후 약간 줄었어요.",
    "\"최고\"라는 말밖에…",
    "교환 문의드립니다: 사이즈 95 → 100",
    "경로는 C:\\주문\\2024 입니다.\n두 번째 줄\t탭도 있습니다.",
];
const SHOP_NAMES: &[&str] =
    &["한빛", "달보드레", "온새미로", "가온", "미리내", "도담", "라온", "누리", "하늘", "새봄", "예그리나", "단비"];
const SHOP_KINDS: &[&str] = &["상회", "마켓", "스토어", "공방", "농원", "몰", "문고", "전자"];
pub(crate) const COLOURS: &[&str] = &["검정", "흰색", "남색", "빨강", "연두", "베이지"];
pub(crate) const SIZES: &[&str] = &["S", "M", "L", "XL", "FREE"];

pub(crate) fn person(dice: &mut Dice) -> String {
    [dice.pick(FAMILY_NAMES), dice.pick(GIVEN_NAMES)].concat()
}

pub(crate) fn address(dice: &mut Dice) -> String {
    let (city, street) = (dice.pick(CITIES), dice.pick(STREETS));
    format!(
        "{city} {street} {}길 {}, {}동 {}호",
        dice.between(1, 60),
        dice.between(1, 200),
        dice.between(101, 130),
        dice.between(101, 2504)
    )
}

pub(crate) fn goods(dice: &mut Dice) -> String {
    format!("{} {}", dice.pick(QUALITIES), dice.pick(GOODS))
}

pub(crate) fn shop(dice: &mut Dice) -> String {
    format!("{}{}", dice.pick(SHOP_NAMES), dice.pick(SHOP_KINDS))
}

pub(crate) fn letter(dice: &mut Dice, sentences_max: u64) -> String {
    let sentences: Vec<&str> = (0..dice.between(1, sentences_max)).map(|_| dice.pick(SENTENCES)).collect();
    sentences.join(" ")
}
