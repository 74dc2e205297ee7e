// The keys and the user of every test. Keys carry the word that the canary run searches for.

export const serviceKey = 'CANARY-service-key-0123456789abcdefghijklmnop'
export const adminKey = 'CANARY-admin-key-9876543210zyxwvutsrqponmlkjihg'
export const demo = { username: 'demo@example.com', password: 'postman' }
